#include "storage/schema_rule.hh"
#include "storage/schema_stack.hh"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <unordered_map>

extern "C" {
#include "core/buf.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/value.h"
}

namespace sel_schema_internal
{

const RuleName rule_names[] = {
    {"minimum", "selinon:minimum", RuleKind::minimum},
    {"maximum", "selinon:maximum", RuleKind::maximum},
    {"exclusiveMinimum", "selinon:exclusiveMinimum", RuleKind::exclusive_minimum},
    {"exclusiveMaximum", "selinon:exclusiveMaximum", RuleKind::exclusive_maximum},
    {"multipleOf", "selinon:multipleOf", RuleKind::multiple_of},
    {"minLength", "selinon:minLength", RuleKind::min_length},
    {"maxLength", "selinon:maxLength", RuleKind::max_length},
    {"pattern", "selinon:pattern", RuleKind::pattern},
    {"format", "selinon:format", RuleKind::format},
    {"const", "selinon:const", RuleKind::is_const},
    {"enum", "selinon:enum", RuleKind::is_enum},
    {"type", "selinon:type", RuleKind::type},
    {nullptr, "selinon:type-draft4", RuleKind::type_draft4},
    {"uniqueItems", "selinon:uniqueItems", RuleKind::unique_items},
    {nullptr, nullptr, RuleKind::type},
};

/* Stack that std::regex takes a character and a group. Measured, worst of gcc 12 and clang 14: 430
 * bytes (-O2), 380 without optimisation, 1.3 KiB under ASan. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static constexpr size_t REGEX_FRAME = 3 << 10;
#else
static constexpr size_t REGEX_FRAME = 512;
#endif

static const char *const type_names[] = {"null",   "boolean", "integer", "number",
                                         "string", "array",   "object"};

/* A long double holds every int64_t, uint64_t and double. */
static_assert(LDBL_MANT_DIG >= 64, "numbers compare exactly");

static bool is_number(const struct sel_value *v)
{
    return sel_value_kind(v) == SEL_INT || sel_value_kind(v) == SEL_FLOAT;
}

static bool is_text(const struct sel_value *v)
{
    return sel_value_kind(v) == SEL_TEXT || sel_value_kind(v) == SEL_BIN;
}

static long double number(const struct sel_value *v)
{
    int64_t i;
    if (sel_value_kind(v) == SEL_FLOAT)
        return sel_value_num(v);
    if (sel_value_i64(v, &i))
        return i;
    return v->o.via.u64;
}

static std::string text_of(const struct sel_value *v)
{
    struct sel_buf buf = {};
    sel_json_write(v, 0, &buf);
    std::string text = sel_buf_cstr(&buf);
    sel_buf_done(&buf);
    constexpr size_t shown_max = 100;
    return text.size() > shown_max ? text.substr(0, shown_max) + "..." : text;
}

/* ---- equality: numbers by value, everything else by kind ---- */

static bool same(const struct sel_value *a, const struct sel_value *b);

static bool same_lists(const struct sel_value *a, const struct sel_value *b)
{
    if (sel_value_count(a) != sel_value_count(b))
        return false;
    for (uint32_t i = 0; i < sel_value_count(a); i++)
        if (!same(sel_value_at(a, i), sel_value_at(b, i)))
            return false;
    return true;
}

static bool same_maps(const struct sel_value *a, const struct sel_value *b)
{
    if (sel_value_count(a) != sel_value_count(b))
        return false;
    for (uint32_t i = 0; i < sel_value_count(a); i++) {
        const struct sel_value *key = sel_value_key_at(a, i);
        if (sel_value_kind(key) != SEL_TEXT)
            return false;
        const struct sel_value *other = sel_value_get(b, sel_value_str(key));
        if (!other || !same(sel_value_val_at(a, i), other))
            return false;
    }
    return true;
}

static bool same(const struct sel_value *a, const struct sel_value *b)
{
    if (is_number(a) && is_number(b))
        return number(a) == number(b);
    if (sel_value_kind(a) != sel_value_kind(b))
        return false;
    switch (sel_value_kind(a)) {
    case SEL_LIST:
        return same_lists(a, b);
    case SEL_MAP:
        return same_maps(a, b);
    default:
        return sel_value_same(a, b);
    }
}

/* Equal values hash alike. */
static uint64_t hash_of(const struct sel_value *v)
{
    uint64_t sum = static_cast<uint64_t>(sel_value_kind(v));
    if (is_number(v)) {
        double d = static_cast<double>(number(v));
        d = d == 0 ? 0 : d; /* -0.0 */
        return sel_hash_bytes(&d, sizeof(d), SEL_FLOAT);
    }
    switch (sel_value_kind(v)) {
    case SEL_TEXT:
    case SEL_BIN:
        return sel_hash_bytes(sel_value_str(v).p, sel_value_str(v).n, sum);
    case SEL_BOOL:
        return sum + sel_value_bool(v);
    case SEL_LIST:
        for (uint32_t i = 0; i < sel_value_count(v); i++) {
            uint64_t item = hash_of(sel_value_at(v, i));
            sum = sel_hash_bytes(&item, sizeof(item), sum);
        }
        return sum;
    case SEL_MAP: /* in any order */
        for (uint32_t i = 0; i < sel_value_count(v); i++) {
            uint64_t item = hash_of(sel_value_val_at(v, i));
            sum += sel_hash_bytes(&item, sizeof(item), hash_of(sel_value_key_at(v, i)));
        }
        return sum;
    default:
        return sum;
    }
}

static bool is_unique(const struct sel_value *list)
{
    std::unordered_multimap<uint64_t, const struct sel_value *> seen;
    seen.reserve(sel_value_count(list));
    for (uint32_t i = 0; i < sel_value_count(list); i++) {
        const struct sel_value *item = sel_value_at(list, i);
        uint64_t hash = hash_of(item);
        auto range = seen.equal_range(hash);
        for (auto it = range.first; it != range.second; ++it)
            if (same(it->second, item))
                return false;
        seen.emplace(hash, item);
    }
    return true;
}

/* ---- numbers and texts ---- */

static bool is_multiple(const struct sel_value *v, const struct sel_value *of)
{
    long double a = number(v), b = number(of), q = a / b;
    if (!std::isfinite(a) || !std::isfinite(q))
        return false;
    if (std::fmod(a, b) == 0)
        return true;
    if (sel_value_kind(v) == SEL_INT && sel_value_kind(of) == SEL_INT)
        return false;
    /* 0.0075 is a multiple of 0.0001 though neither is exact: allow what rounding both may make. */
    return std::fabs(q - std::round(q)) <= std::fabs(q) * 4 * DBL_EPSILON && std::fabs(q) < 0x1p50L;
}

static size_t length(const struct sel_value *v)
{
    struct sel_str s = sel_value_str(v);
    return sel_value_kind(v) == SEL_TEXT ? sel_str_code_points(s) : s.n;
}

/* Takes `digits` decimal digits off the front; -1 if there are not so many. */
static int take_number(struct sel_str *s, size_t digits)
{
    int value = 0;
    if (s->n < digits)
        return -1;
    for (size_t i = 0; i < digits; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return -1;
        value = value * 10 + (s->p[i] - '0');
    }
    *s = {s->p + digits, s->n - digits};
    return value;
}

static bool take_one_of(struct sel_str *s, const char *chars)
{
    if (s->n == 0 || s->p[0] == '\0' || !strchr(chars, s->p[0]))
        return false;
    *s = {s->p + 1, s->n - 1};
    return true;
}

/* RFC 3339, section 5.6: full-date */
static bool take_date(struct sel_str *s)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = take_number(s, 4);
    if (year < 0 || !take_one_of(s, "-"))
        return false;
    int month = take_number(s, 2);
    if (month < 1 || month > 12 || !take_one_of(s, "-"))
        return false;
    int day = take_number(s, 2);
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return day >= 1 && day <= days[month - 1] - (month == 2 && !is_leap);
}

/* full-time; a second 60 is let through at any minute */
static bool take_time(struct sel_str *s)
{
    int hour = take_number(s, 2);
    if (hour < 0 || hour > 23 || !take_one_of(s, ":"))
        return false;
    int minute = take_number(s, 2);
    if (minute < 0 || minute > 59 || !take_one_of(s, ":"))
        return false;
    int second = take_number(s, 2);
    if (second < 0 || second > 60)
        return false;
    if (take_one_of(s, ".")) {
        if (!take_one_of(s, "0123456789"))
            return false;
        while (take_one_of(s, "0123456789"))
            ;
    }
    if (take_one_of(s, "Zz"))
        return true;
    if (!take_one_of(s, "+-"))
        return false;
    hour = take_number(s, 2);
    if (hour < 0 || hour > 23 || !take_one_of(s, ":"))
        return false;
    minute = take_number(s, 2);
    return minute >= 0 && minute <= 59;
}

/* Formats that valijson does not know either are annotations. */
static bool has_format(struct sel_str s, struct sel_str format)
{
    if (sel_str_eq_c(format, "date"))
        return take_date(&s) && s.n == 0;
    if (sel_str_eq_c(format, "time"))
        return take_time(&s) && s.n == 0;
    if (sel_str_eq_c(format, "date-time"))
        return take_date(&s) && take_one_of(&s, "Tt") && take_time(&s) && s.n == 0;
    return true;
}

/* ---- types ---- */

static bool has_type(const struct sel_value *v, struct sel_str type, bool is_draft4)
{
    switch (sel_value_kind(v)) {
    case SEL_NULL:
        return sel_str_eq_c(type, "null");
    case SEL_BOOL:
        return sel_str_eq_c(type, "boolean");
    case SEL_INT:
        return sel_str_eq_c(type, "integer") || sel_str_eq_c(type, "number");
    case SEL_FLOAT:
        return sel_str_eq_c(type, "number") || (!is_draft4 && sel_str_eq_c(type, "integer") &&
                                                std::trunc(sel_value_num(v)) == sel_value_num(v) &&
                                                std::isfinite(sel_value_num(v)));
    case SEL_TEXT:
    case SEL_BIN:
        return sel_str_eq_c(type, "string");
    case SEL_LIST:
        return sel_str_eq_c(type, "array");
    case SEL_MAP:
        return sel_str_eq_c(type, "object");
    case SEL_EXT:
        return false;
    }
    return false;
}

static bool has_one_type(const struct sel_value *v, const struct sel_value *types, bool is_draft4)
{
    if (sel_value_kind(types) == SEL_TEXT)
        return has_type(v, sel_value_str(types), is_draft4);
    for (uint32_t i = 0; i < sel_value_count(types); i++)
        if (has_type(v, sel_value_str(sel_value_at(types, i)), is_draft4))
            return true;
    return false;
}

static void check_type_name(const struct sel_value *v)
{
    if (sel_value_kind(v) == SEL_TEXT)
        for (const char *name : type_names)
            if (sel_str_eq_c(sel_value_str(v), name))
                return;
    throw std::runtime_error("'type' is one of null, boolean, integer, number, string, array, "
                             "object or a list of them, not " +
                             text_of(v));
}

/* ---- the rule ---- */

static const char *keyword_of(RuleKind kind)
{
    for (const RuleName *rule = rule_names; rule->name; rule++)
        if (rule->kind == kind && rule->keyword)
            return rule->keyword;
    return "type";
}

static void require(bool is_fine, RuleKind kind, const char *wanted, const struct sel_value *v)
{
    if (!is_fine)
        throw std::runtime_error(std::string("'") + keyword_of(kind) + "' must be " + wanted +
                                 ", not " + text_of(v));
}

Rule::Rule(RuleKind kind, const struct sel_value *argument) : kind_(kind), argument_(argument)
{
    switch (kind) {
    case RuleKind::minimum:
    case RuleKind::maximum:
    case RuleKind::exclusive_minimum:
    case RuleKind::exclusive_maximum:
        require(is_number(argument), kind, "a number", argument);
        break;
    case RuleKind::multiple_of:
        require(is_number(argument) && number(argument) > 0, kind, "a number above 0", argument);
        break;
    case RuleKind::min_length:
    case RuleKind::max_length:
        require(is_number(argument) && number(argument) >= 0 &&
                    std::trunc(number(argument)) == number(argument),
                kind, "a whole number, 0 or more", argument);
        break;
    case RuleKind::pattern:
        require(sel_value_kind(argument) == SEL_TEXT, kind, "text", argument);
        try {
            struct sel_str s = sel_value_str(argument);
            /* Terminated: libstdc++ 12 looks at what follows a last '('. */
            std::string pattern(s.n ? s.p : "", s.n);
            regex_ = std::make_shared<const std::regex>(pattern);
            stack_per_char_ =
                REGEX_FRAME * (1 + static_cast<size_t>(std::count(s.p, s.p + s.n, '(')));
        } catch (const std::regex_error &e) {
            throw std::runtime_error("'pattern' " + text_of(argument) +
                                     " is no regular expression: " + e.what());
        }
        break;
    case RuleKind::format:
        require(sel_value_kind(argument) == SEL_TEXT, kind, "text", argument);
        break;
    case RuleKind::is_const:
        break;
    case RuleKind::is_enum:
        require(sel_value_kind(argument) == SEL_LIST, kind, "a list", argument);
        break;
    case RuleKind::unique_items:
        require(sel_value_kind(argument) == SEL_BOOL, kind, "true or false", argument);
        break;
    case RuleKind::type:
    case RuleKind::type_draft4:
        if (sel_value_kind(argument) != SEL_LIST)
            check_type_name(argument);
        else
            for (uint32_t i = 0; i < sel_value_count(argument); i++)
                check_type_name(sel_value_at(argument, i));
        break;
    }
}

struct MatchJob {
    const std::regex *regex;
    struct sel_str text;
    bool is_match;
    std::string fault;
};

static void match(void *arg)
{
    MatchJob *job = static_cast<MatchJob *>(arg);
    const char *p = job->text.n ? job->text.p : "";
    try {
        job->is_match = std::regex_search(p, p + job->text.n, *job->regex);
    } catch (const std::exception &e) {
        job->fault = e.what();
    }
}

/* std::regex recurses with every character, deeper with every group. */
bool Rule::matches(struct sel_str text) const
{
    MatchJob job = {regex_.get(), text, false, {}};
    size_t need = text.n * stack_per_char_;
    if (need <= INLINE_STACK)
        match(&job);
    else if (need > STACK_MAX)
        throw std::runtime_error("a text of " + std::to_string(text.n) +
                                 " bytes is too long for 'pattern' " + text_of(argument_));
    else if (run_on_stack(need + INLINE_STACK, match, &job) < 0)
        throw std::bad_alloc();
    if (!job.fault.empty())
        throw std::runtime_error("'pattern' " + text_of(argument_) + ": " + job.fault);
    return job.is_match;
}

bool Rule::holds(const struct sel_value *v) const
{
    const struct sel_value *arg = argument_;
    switch (kind_) {
    case RuleKind::minimum:
        return !is_number(v) || number(v) >= number(arg);
    case RuleKind::maximum:
        return !is_number(v) || number(v) <= number(arg);
    case RuleKind::exclusive_minimum:
        return !is_number(v) || number(v) > number(arg);
    case RuleKind::exclusive_maximum:
        return !is_number(v) || number(v) < number(arg);
    case RuleKind::multiple_of:
        return !is_number(v) || is_multiple(v, arg);
    case RuleKind::min_length:
        return !is_text(v) || static_cast<long double>(length(v)) >= number(arg);
    case RuleKind::max_length:
        return !is_text(v) || static_cast<long double>(length(v)) <= number(arg);
    case RuleKind::pattern: {
        if (!is_text(v))
            return true;
        return matches(sel_value_str(v));
    }
    case RuleKind::format:
        return !is_text(v) || has_format(sel_value_str(v), sel_value_str(arg));
    case RuleKind::is_const:
        return same(v, arg);
    case RuleKind::is_enum:
        for (uint32_t i = 0; i < sel_value_count(arg); i++)
            if (same(v, sel_value_at(arg, i)))
                return true;
        return false;
    case RuleKind::unique_items:
        return sel_value_kind(v) != SEL_LIST || !sel_value_bool(arg) || is_unique(v);
    case RuleKind::type:
    case RuleKind::type_draft4:
        return has_one_type(v, arg, kind_ == RuleKind::type_draft4);
    }
    return false;
}

std::string Rule::complaint() const
{
    std::string arg = text_of(argument_);
    switch (kind_) {
    case RuleKind::minimum:
        return "less than the minimum " + arg;
    case RuleKind::maximum:
        return "more than the maximum " + arg;
    case RuleKind::exclusive_minimum:
        return "not more than " + arg;
    case RuleKind::exclusive_maximum:
        return "not less than " + arg;
    case RuleKind::multiple_of:
        return "no multiple of " + arg;
    case RuleKind::min_length:
        return "shorter than " + arg + " characters";
    case RuleKind::max_length:
        return "longer than " + arg + " characters";
    case RuleKind::pattern:
        return "does not match the pattern " + arg;
    case RuleKind::format:
        return "not of the format " + arg;
    case RuleKind::is_const:
        return "not equal to " + arg;
    case RuleKind::is_enum:
        return "none of " + arg;
    case RuleKind::unique_items:
        return "has equal items, which 'uniqueItems' forbids";
    case RuleKind::type:
    case RuleKind::type_draft4:
        return "not of the type " + arg;
    }
    return "refused";
}

bool Rule::validate(const valijson::adapters::Adapter &target,
                    const std::vector<std::string> &context,
                    valijson::ValidationResults *results) const
{
    bool is_fine;
    std::string shown;
    if (results && results->numErrors() >= FAULTS_MAX)
        throw EnoughFaults();
    if (const Adapter *own = dynamic_cast<const Adapter *>(&target)) {
        is_fine = holds(own->value());
        if (!is_fine && results)
            shown = text_of(own->value());
    } else { /* the name of a property, which valijson wraps itself */
        shown = target.asString();
        struct sel_value v = sel_value_from_str({shown.data(), shown.size()});
        is_fine = holds(&v);
    }
    if (!is_fine && results)
        results->pushError(context, shown + " is " + complaint());
    return is_fine;
}

valijson::constraints::Constraint *RuleBuilder::make(const valijson::adapters::Adapter &node) const
{
    return new Rule(kind_, dynamic_cast<const Adapter &>(node).value());
}

} // namespace sel_schema_internal
