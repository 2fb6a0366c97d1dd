/* storage/schema_value.hh - struct sel_value as valijson sees JSON.
 *
 * An adapter over our own values: nothing is converted or copied, and integers stay what they
 * are. Bytes read as text; keys that are no text read as "". */
#ifndef SEL_STORAGE_SCHEMA_VALUE_HH
#define SEL_STORAGE_SCHEMA_VALUE_HH

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#define VALIJSON_USE_EXCEPTIONS 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* std::regex, see schema_rule.hh */
#endif
#include <valijson/adapters/std_string_adapter.hpp>
#include <valijson/constraint_builder.hpp>
#include <valijson/internal/adapter.hpp>
#include <valijson/internal/basic_adapter.hpp>
#include <valijson/internal/frozen_value.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>
#pragma GCC diagnostic pop

extern "C" {
#include <selinon/value.h>
}

namespace sel_schema_internal
{

class Adapter;
using Member = std::pair<std::string, Adapter>;

const struct sel_value *empty_list();
const struct sel_value *empty_map();

/* Walks the elements of a list or the members of a map; `Item` is what it points at. */
template <typename Item> class Iterator
{
  public:
    using iterator_category = std::bidirectional_iterator_tag;
    using value_type = Item;
    using difference_type = std::ptrdiff_t;
    using pointer = Item *;
    using reference = Item &;

    Iterator(const struct sel_value *of, std::ptrdiff_t at) : of_(of), at_(at)
    {
    }
    Item operator*() const;
    valijson::adapters::DerefProxy<Item> operator->() const
    {
        return valijson::adapters::DerefProxy<Item>(**this);
    }
    bool operator==(const Iterator &other) const
    {
        return at_ == other.at_;
    }
    bool operator!=(const Iterator &other) const
    {
        return at_ != other.at_;
    }
    const Iterator &operator++()
    {
        at_++;
        return *this;
    }
    Iterator operator++(int)
    {
        Iterator before(*this);
        at_++;
        return before;
    }
    const Iterator &operator--()
    {
        at_--;
        return *this;
    }
    void advance(std::ptrdiff_t n)
    {
        at_ += n;
    }

  private:
    const struct sel_value *of_;
    std::ptrdiff_t at_;
};

class List
{
  public:
    using const_iterator = Iterator<Adapter>;
    using iterator = Iterator<Adapter>;

    List() : v_(empty_list())
    {
    }
    explicit List(const struct sel_value *v) : v_(v)
    {
    }
    const_iterator begin() const
    {
        return const_iterator(v_, 0);
    }
    const_iterator end() const
    {
        return const_iterator(v_, static_cast<std::ptrdiff_t>(size()));
    }
    size_t size() const
    {
        return sel_value_count(v_);
    }

  private:
    const struct sel_value *v_;
};

class Map
{
  public:
    using const_iterator = Iterator<Member>;
    using iterator = Iterator<Member>;

    Map() : v_(empty_map())
    {
    }
    explicit Map(const struct sel_value *v) : v_(v)
    {
    }
    const_iterator begin() const
    {
        return const_iterator(v_, 0);
    }
    const_iterator end() const
    {
        return const_iterator(v_, static_cast<std::ptrdiff_t>(size()));
    }
    const_iterator find(const std::string &key) const;
    size_t size() const
    {
        return sel_value_count(v_);
    }

  private:
    const struct sel_value *v_;
};

/* valijson wants to keep values of a schema; ours live as long as the schema anyhow. */
class Frozen : public valijson::adapters::FrozenValue
{
  public:
    explicit Frozen(const struct sel_value *v) : v_(v)
    {
    }
    FrozenValue *clone() const override
    {
        return new Frozen(v_);
    }
    bool equalTo(const valijson::adapters::Adapter &other, bool strict) const override;

  private:
    const struct sel_value *v_;
};

class Value
{
  public:
    Value() : v_(empty_map())
    {
    }
    explicit Value(const struct sel_value *v) : v_(v)
    {
    }
    const struct sel_value *get() const
    {
        return v_;
    }
    valijson::adapters::FrozenValue *freeze() const
    {
        return new Frozen(v_);
    }
    opt::optional<List> getArrayOptional() const
    {
        return isArray() ? opt::make_optional(List(v_)) : opt::optional<List>();
    }
    opt::optional<Map> getObjectOptional() const
    {
        return isObject() ? opt::make_optional(Map(v_)) : opt::optional<Map>();
    }
    bool getArraySize(size_t &ret) const
    {
        return isArray() && (ret = sel_value_count(v_), true);
    }
    bool getObjectSize(size_t &ret) const
    {
        return isObject() && (ret = sel_value_count(v_), true);
    }
    bool getBool(bool &ret) const
    {
        return isBool() && (ret = sel_value_bool(v_), true);
    }
    bool getDouble(double &ret) const
    {
        return isDouble() && (ret = sel_value_num(v_), true);
    }
    bool getInteger(int64_t &ret) const
    {
        return isInteger() && sel_value_i64(v_, &ret);
    }
    bool getString(std::string &ret) const
    {
        if (!isString())
            return false;
        struct sel_str s = sel_value_str(v_);
        ret = s.n ? std::string(s.p, s.n) : std::string();
        return true;
    }
    static bool hasStrictTypes()
    {
        return true;
    }
    bool isArray() const
    {
        return sel_value_kind(v_) == SEL_LIST;
    }
    bool isBool() const
    {
        return sel_value_kind(v_) == SEL_BOOL;
    }
    bool isDouble() const
    {
        return sel_value_kind(v_) == SEL_FLOAT;
    }
    bool isInteger() const
    {
        return sel_value_kind(v_) == SEL_INT;
    }
    bool isNull() const
    {
        return sel_value_kind(v_) == SEL_NULL;
    }
    bool isNumber() const
    {
        return isInteger() || isDouble();
    }
    bool isObject() const
    {
        return sel_value_kind(v_) == SEL_MAP;
    }
    bool isString() const
    {
        return sel_value_kind(v_) == SEL_TEXT || sel_value_kind(v_) == SEL_BIN;
    }

  private:
    const struct sel_value *v_;
};

class Adapter : public valijson::adapters::BasicAdapter<Adapter, List, Member, Map, Value>
{
  public:
    Adapter() : BasicAdapter(Value()), value_(empty_map())
    {
    }
    explicit Adapter(const struct sel_value *v) : BasicAdapter(Value(v)), value_(v)
    {
    }
    explicit Adapter(const struct sel_value &v) : Adapter(&v)
    {
    }
    const struct sel_value *value() const
    {
        return value_;
    }

  private:
    const struct sel_value *value_;
};

inline std::string key_text(const struct sel_value *map, uint32_t i)
{
    std::string text;
    (void)Value(sel_value_key_at(map, i)).getString(text);
    return text;
}

template <> inline Adapter Iterator<Adapter>::operator*() const
{
    return Adapter(sel_value_at(of_, static_cast<uint32_t>(at_)));
}

template <> inline Member Iterator<Member>::operator*() const
{
    uint32_t i = static_cast<uint32_t>(at_);
    return Member(key_text(of_, i), Adapter(sel_value_val_at(of_, i)));
}

/* Of duplicate keys the last counts, as everywhere. */
inline Map::const_iterator Map::find(const std::string &key) const
{
    for (uint32_t i = sel_value_count(v_); i-- > 0;) {
        const struct sel_value *k = sel_value_key_at(v_, i);
        if (sel_value_kind(k) != SEL_TEXT)
            continue;
        struct sel_str s = sel_value_str(k);
        if (key.compare(0, std::string::npos, s.n ? s.p : "", s.n) == 0)
            return const_iterator(v_, i);
    }
    return end();
}

inline bool Frozen::equalTo(const valijson::adapters::Adapter &other, bool strict) const
{
    return Adapter(v_).equalTo(other, strict);
}

} // namespace sel_schema_internal

namespace valijson::adapters
{
template <> struct AdapterTraits<sel_schema_internal::Adapter> {
    using DocumentType = struct sel_value;

    static std::string adapterName()
    {
        return "sel_value";
    }
};
} // namespace valijson::adapters

#endif
