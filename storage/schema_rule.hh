/* storage/schema_rule.hh - the keywords of JSON Schema about one scalar, exactly.
 *
 * valijson 1.0 compares numbers as doubles, reads a `format` of a number as an error, counts
 * characters up to the first NUL, divides by a `multipleOf` of 0 and compares `uniqueItems` pair
 * by pair. These rules stand in for its own: storage/schema.cc gives their keywords the names
 * below before valijson parses the schema. Structure (properties, items, allOf, $ref...) is
 * valijson's. */
#ifndef SEL_STORAGE_SCHEMA_RULE_HH
#define SEL_STORAGE_SCHEMA_RULE_HH

#include <memory>
#include <string>
#include <vector>

/* gcc 12 warns of std::regex itself when it optimises with sanitizers on (its bug 105562). */
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <regex>
#pragma GCC diagnostic pop

#include "storage/schema_value.hh"

namespace sel_schema_internal
{

enum class RuleKind {
    minimum,
    maximum,
    exclusive_minimum,
    exclusive_maximum,
    multiple_of,
    min_length,
    max_length,
    pattern,
    format,
    is_const,
    is_enum,
    type,        /* drafts 6, 7: 1.0 is an integer */
    type_draft4, /* 1.0 is none */
    unique_items,
};

/* Thrown by a rule when so many faults have been noted that more would only cost time. */
struct EnoughFaults {
};
constexpr size_t FAULTS_MAX = 64;

struct RuleName {
    const char *keyword; /* in a schema; NULL: only by its other name */
    const char *name;    /* for valijson */
    RuleKind kind;
};

/* All rules; ends with a NULL name. */
extern const RuleName rule_names[];

class Rule : public valijson::constraints::PolyConstraint
{
  public:
    /* Throws std::runtime_error if `argument` is none for that keyword. */
    Rule(RuleKind kind, const struct sel_value *argument);
    bool validate(const valijson::adapters::Adapter &target,
                  const std::vector<std::string> &context,
                  valijson::ValidationResults *results) const override;

  private:
    Constraint *cloneInto(void *p) const override
    {
        return new (p) Rule(*this);
    }
    size_t sizeOf() const override
    {
        return sizeof(Rule);
    }
    bool holds(const struct sel_value *v) const;
    std::string complaint() const;
    bool matches(struct sel_str text) const;

    RuleKind kind_;
    const struct sel_value *argument_; /* lives as long as the schema */
    std::shared_ptr<const std::regex> regex_;
    size_t stack_per_char_ = 0; /* of regex_ */
};

class RuleBuilder : public valijson::ConstraintBuilder
{
  public:
    explicit RuleBuilder(RuleKind kind) : kind_(kind)
    {
    }
    valijson::constraints::Constraint *make(const valijson::adapters::Adapter &node) const override;

  private:
    RuleKind kind_;
};

} // namespace sel_schema_internal

#endif
