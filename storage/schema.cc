/* The C face of valijson.
 *
 * Before valijson sees a schema, `Analysis` walks it: references are resolved (inside the document
 * only), the keywords that schema_rule.hh takes over get their other names, those that the draft
 * does not know are put aside, and a schema that leads back to itself without going deeper into
 * the value is refused; valijson would never return from it.
 *
 * Stack (schema_stack.hh): how deep valijson gets follows from the longest chain of schemas about
 * one value and the depth of the value. */
extern "C" {
#include "storage/schema.h"

#include <pthread.h>

#include "core/arena.h"
#include "core/json.h"
}

#include <map>
#include <unordered_map>

#include "storage/schema_rule.hh"
#include "storage/schema_stack.hh"

using namespace sel_schema_internal;

namespace
{

constexpr size_t SCHEMAS_MAX = 20000; /* schemas in one document */
constexpr size_t REPORT_DEPTH_MAX = 64;
constexpr size_t STACK_MIN = 256 << 10;
/* Measured a schema on the way down, worst of gcc 12 and clang 14: 0.9 KiB with -O2, 2.3 KiB
 * without, 9 KiB under ASan. Parsing a schema needs up to 4 times as much. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr size_t FRAME = 12 << 10;
#else
constexpr size_t FRAME = 3 << 9;
#endif
constexpr size_t KEY_FRAME = 4 << 10; /* std::regex, a character of a key for patternProperties */

enum class Draft { d4, d6, d7 };

/* An error with one of our codes. */
class Refusal : public std::runtime_error
{
  public:
    Refusal(int code, const std::string &text) : std::runtime_error(text), code_(code)
    {
    }
    int code() const
    {
        return code_;
    }

  private:
    int code_;
};

std::string str(struct sel_str s)
{
    return s.n ? std::string(s.p, s.n) : std::string();
}

/* ---- analysis of a schema ---- */

class Analysis
{
  public:
    Analysis(const struct sel_value *root, Draft draft) : root_(root), draft_(draft)
    {
        add(root, "#");
        for (size_t i = 0; i < nodes_.size(); i++) /* grows on the way */
            visit(i);
        measure_chain();
    }
    /* The last step: valijson reads what it leaves. */
    void rename_keywords();

    size_t schema_count() const
    {
        return nodes_.size();
    }
    size_t chain() const
    {
        return chain_;
    }
    bool has_key_patterns() const
    {
        return has_key_patterns_;
    }

  private:
    struct Node {
        const struct sel_value *schema;
        std::string where;
        std::vector<size_t> same; /* schemas that it applies to the same value */
        size_t incoming = 0;
        size_t depth = 1;
    };

    size_t add(const struct sel_value *schema, const std::string &where);
    void add_same(size_t from, const struct sel_value *schema, const std::string &where);
    void visit(size_t i);
    void visit_keyword(size_t i, const std::string &key, const struct sel_value *v);
    const struct sel_value *resolve(const Node &node, const struct sel_value *ref) const;
    const struct sel_value *step(const struct sel_value *at, const std::string &token) const;
    bool is_known(const std::string &key) const;
    void check_regex_keys(const struct sel_value *map, const std::string &where);
    void measure_chain();

    const struct sel_value *root_;
    Draft draft_;
    std::vector<Node> nodes_;
    std::unordered_map<const struct sel_value *, size_t> index_;
    size_t chain_ = 1;
    bool has_key_patterns_ = false;
};

size_t Analysis::add(const struct sel_value *schema, const std::string &where)
{
    auto found = index_.find(schema);
    if (found != index_.end())
        return found->second;
    enum sel_kind kind = sel_value_kind(schema);
    if (kind != SEL_MAP && kind != SEL_BOOL)
        throw Refusal(SEL_ECONFIG,
                      where + ": a schema is a mapping, not " + sel_value_kind_name(kind));
    if (nodes_.size() == SCHEMAS_MAX)
        throw Refusal(SEL_ELIMIT, "more than " + std::to_string(SCHEMAS_MAX) + " schemas in one");
    nodes_.push_back({schema, where, {}});
    index_.emplace(schema, nodes_.size() - 1);
    return nodes_.size() - 1;
}

void Analysis::add_same(size_t from, const struct sel_value *schema, const std::string &where)
{
    size_t to = add(schema, where);
    nodes_[from].same.push_back(to);
    nodes_[to].incoming++;
}

/* Keywords of later drafts are none: they are ignored, as the drafts ask for. */
bool Analysis::is_known(const std::string &key) const
{
    if (key == "if" || key == "then" || key == "else")
        return draft_ == Draft::d7;
    if (key == "const" || key == "contains" || key == "propertyNames")
        return draft_ != Draft::d4;
    return true;
}

void Analysis::visit(size_t i)
{
    const struct sel_value *schema = nodes_[i].schema;
    if (sel_value_kind(schema) != SEL_MAP)
        return;
    const struct sel_value *ref = sel_value_get_c(schema, "$ref");
    if (ref) { /* what stands beside it does not count */
        const struct sel_value *target = resolve(nodes_[i], ref);
        add_same(i, target, str(sel_value_str(ref)));
        return;
    }
    for (uint32_t k = 0; k < sel_value_count(schema); k++) {
        std::string key = key_text(schema, k);
        if (is_known(key))
            visit_keyword(i, key, sel_value_val_at(schema, k));
    }
}

void Analysis::visit_keyword(size_t i, const std::string &key, const struct sel_value *v)
{
    const std::string where = nodes_[i].where + "/" + key;
    enum sel_kind kind = sel_value_kind(v);
    auto is_one_of = [&key](std::initializer_list<const char *> keys) {
        return std::find(keys.begin(), keys.end(), key) != keys.end();
    };
    if (is_one_of({"allOf", "anyOf", "oneOf"})) {
        if (kind != SEL_LIST || sel_value_count(v) == 0)
            throw Refusal(SEL_ECONFIG, where + ": must be a list of schemas, at least one");
        for (uint32_t n = 0; n < sel_value_count(v); n++)
            add_same(i, sel_value_at(v, n), where + "/" + std::to_string(n));
    } else if (is_one_of({"not", "if", "then", "else"})) {
        add_same(i, v, where);
    } else if (is_one_of({"dependencies"})) {
        for (uint32_t n = 0; kind == SEL_MAP && n < sel_value_count(v); n++)
            if (sel_value_kind(sel_value_val_at(v, n)) != SEL_LIST)
                add_same(i, sel_value_val_at(v, n), where + "/" + key_text(v, n));
    } else if (is_one_of({"properties", "patternProperties"})) {
        for (uint32_t n = 0; kind == SEL_MAP && n < sel_value_count(v); n++)
            add(sel_value_val_at(v, n), where + "/" + key_text(v, n));
        if (key == "patternProperties")
            check_regex_keys(v, where);
    } else if (is_one_of({"items"}) && kind == SEL_LIST) {
        for (uint32_t n = 0; n < sel_value_count(v); n++)
            add(sel_value_at(v, n), where + "/" + std::to_string(n));
    } else if (is_one_of({"items", "additionalItems", "additionalProperties", "contains",
                          "propertyNames"})) {
        add(v, where);
    }
}

void Analysis::check_regex_keys(const struct sel_value *map, const std::string &where)
{
    has_key_patterns_ = true;
    for (uint32_t n = 0; sel_value_kind(map) == SEL_MAP && n < sel_value_count(map); n++) {
        try {
            std::regex regex(key_text(map, n));
        } catch (const std::regex_error &e) {
            throw Refusal(SEL_ECONFIG, where + ": '" + key_text(map, n) +
                                           "' is no regular expression: " + e.what());
        }
    }
}

const struct sel_value *Analysis::step(const struct sel_value *at, const std::string &token) const
{
    if (sel_value_kind(at) == SEL_MAP)
        return sel_value_get(at, {token.data(), token.size()});
    if (sel_value_kind(at) != SEL_LIST || token.empty() || token.size() > 9 ||
        token.find_first_not_of("0123456789") != std::string::npos)
        return nullptr;
    unsigned long i = std::stoul(token);
    return i < sel_value_count(at) ? sel_value_at(at, static_cast<uint32_t>(i)) : nullptr;
}

/* What `#/a/b` points to. Tokens are read as valijson reads them later. */
const struct sel_value *Analysis::resolve(const Node &node, const struct sel_value *ref) const
{
    if (sel_value_kind(ref) != SEL_TEXT)
        throw Refusal(SEL_ECONFIG, node.where + ": '$ref' must be text");
    std::string text = str(sel_value_str(ref));
    if (text.empty() || text[0] != '#')
        throw Refusal(SEL_EUNSUPPORTED,
                      node.where + ": $ref '" + text +
                          "' leads out of the document; only '#/...' is followed");
    if (text.size() > 1 && text[1] != '/')
        throw Refusal(SEL_EUNSUPPORTED, node.where + ": $ref '" + text +
                                            "' is a name; write the path, '#/definitions/...'");
    const struct sel_value *at = root_;
    for (size_t begin = 1; at && begin < text.size();) {
        size_t end = std::min(text.find('/', begin + 1), text.size());
        std::string token = valijson::internal::json_pointer::extractReferenceToken(
            text.begin() + static_cast<std::ptrdiff_t>(begin) + 1,
            text.begin() + static_cast<std::ptrdiff_t>(end));
        at = token.empty() ? at : step(at, token);
        begin = end;
    }
    if (!at)
        throw Refusal(SEL_ECONFIG, node.where + ": $ref '" + text + "' points to nothing");
    return at;
}

/* The longest chain of schemas about one value; none if they make a ring. Each schema is looked at
 * when all those that apply it have been. */
void Analysis::measure_chain()
{
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes_.size(); i++)
        if (nodes_[i].incoming == 0)
            ready.push_back(i);
    for (size_t done = 0; done < ready.size(); done++) {
        const Node &node = nodes_[ready[done]];
        chain_ = std::max(chain_, node.depth);
        for (size_t to : node.same) {
            nodes_[to].depth = std::max(nodes_[to].depth, node.depth + 1);
            if (--nodes_[to].incoming == 0)
                ready.push_back(to);
        }
    }
    for (const Node &node : nodes_)
        if (node.incoming > 0)
            throw Refusal(SEL_ECONFIG, node.where + ": the schema leads back to itself for the "
                                                    "same value; it would never end");
}

void rename_key(const struct sel_value *map, const char *key, const char *name)
{
    const msgpack_object_map *m = &map->o.via.map;
    for (uint32_t k = 0; k < m->size; k++) {
        msgpack_object_str *s = &m->ptr[k].key.via.str;
        if (m->ptr[k].key.type == MSGPACK_OBJECT_STR && sel_str_eq_c(sel_str{s->ptr, s->size}, key))
            *s = {static_cast<uint32_t>(strlen(name)), name};
    }
}

/* Draft 4 has `exclusiveMinimum: true` beside `minimum`. */
void rename_draft4_bound(const struct sel_value *schema, const char *bound, const char *exclusive,
                         const char *exclusive_rule, const std::string &where)
{
    const struct sel_value *v = sel_value_get_c(schema, exclusive);
    if (!v)
        return;
    if (sel_value_kind(v) != SEL_BOOL)
        throw Refusal(SEL_ECONFIG,
                      where + ": '" + exclusive + "' must be true or false in draft 4");
    if (sel_value_bool(v))
        rename_key(schema, bound, exclusive_rule);
    rename_key(schema, exclusive, "selinon:ignored");
}

void Analysis::rename_keywords()
{
    static const char *const later[] = {"if", "then", "else", "const", "contains", "propertyNames"};
    for (const Node &node : nodes_) {
        const struct sel_value *schema = node.schema;
        if (sel_value_kind(schema) != SEL_MAP || sel_value_get_c(schema, "$ref"))
            continue;
        for (const char *key : later)
            if (!is_known(key))
                rename_key(schema, key, "selinon:ignored");
        rename_key(schema, "id", "selinon:ignored"); /* valijson would look there for documents */
        if (draft_ == Draft::d4) {
            rename_draft4_bound(schema, "minimum", "exclusiveMinimum", "selinon:exclusiveMinimum",
                                node.where);
            rename_draft4_bound(schema, "maximum", "exclusiveMaximum", "selinon:exclusiveMaximum",
                                node.where);
            rename_key(schema, "type", "selinon:type-draft4");
        }
        for (const RuleName *rule = rule_names; rule->name; rule++)
            if (rule->keyword)
                rename_key(schema, rule->keyword, rule->name);
    }
}

Draft draft_of(const struct sel_value *root)
{
    const struct sel_value *v = sel_value_get_c(root, "$schema");
    if (!v)
        return Draft::d7;
    if (sel_value_kind(v) != SEL_TEXT)
        throw Refusal(SEL_ECONFIG, "#/$schema must be text");
    static const std::map<std::string, Draft> drafts = {
        {"json-schema.org/draft-04/schema", Draft::d4},
        {"json-schema.org/draft-06/schema", Draft::d6},
        {"json-schema.org/draft-07/schema", Draft::d7},
    };
    std::string text = str(sel_value_str(v));
    size_t begin = text.find("://");
    begin = begin == std::string::npos ? 0 : begin + 3;
    auto found = drafts.find(text.substr(begin, text.find('#') - begin));
    if (found == drafts.end())
        throw Refusal(SEL_EUNSUPPORTED,
                      "#/$schema '" + text + "' is not supported; drafts 4, 6 and 7 are");
    return found->second;
}

} // namespace

struct sel_schema {
    struct sel_arena arena = {}; /* the document, which rules point into */
    struct sel_value document = {};
    valijson::Schema compiled;
    size_t chain = 1;
    bool has_key_patterns = false;

    ~sel_schema()
    {
        sel_arena_done(&arena);
    }
};

namespace
{

struct CompileJob {
    sel_schema *schema;
    Analysis *analysis;
    int r;
    struct sel_error *err;
};

int set_error(struct sel_error *err, int code, const char *file, const char *text)
{
    return sel_error_set(err, code, sel_pos{file, 0, 0}, "%s", text);
}

/* Runs `fn` and makes a code of what it throws. */
template <typename Fn> int guarded(const char *file, struct sel_error *err, int code, Fn fn)
{
    try {
        return fn();
    } catch (const Refusal &e) {
        return set_error(err, e.code(), file, e.what());
    } catch (const std::bad_alloc &) {
        return set_error(err, SEL_ENOMEM, file, "out of memory");
    } catch (const std::exception &e) {
        return set_error(err, code, file, e.what());
    } catch (...) {
        return set_error(err, code, file, "unknown error of the JSON Schema library");
    }
}

void populate(void *arg)
{
    CompileJob *job = static_cast<CompileJob *>(arg);
    job->r = guarded(nullptr, job->err, SEL_ECONFIG, [job] {
        valijson::SchemaParser parser(valijson::SchemaParser::kDraft7);
        for (const RuleName *rule = rule_names; rule->name; rule++) {
            auto builder = std::make_unique<RuleBuilder>(rule->kind);
            parser.addConstraintBuilder(rule->name, builder.get());
            (void)builder.release(); /* the parser's, now that it has it */
        }
        parser.populateSchema(Adapter(&job->schema->document), job->schema->compiled);
        return 0;
    });
}

int compile(sel_schema *schema, const char *file, struct sel_str text, struct sel_error *err)
{
    int r = sel_json_parse(&schema->arena, file, text, &schema->document, nullptr, err);
    if (r < 0)
        return r;
    Analysis analysis(&schema->document, draft_of(&schema->document));
    analysis.rename_keywords();
    schema->chain = analysis.chain();
    schema->has_key_patterns = analysis.has_key_patterns();
    CompileJob job = {schema, &analysis, 0, err};
    r = run_on_stack(STACK_MIN + analysis.schema_count() * 4 * FRAME, populate, &job);
    if (r < 0)
        return set_error(err, r, file, "no memory for a thread");
    if (job.r < 0 && err)
        err->pos.file = file;
    return job.r;
}

/* ---- validation ---- */

/* Depth and longest key of a value, found without recursion. */
struct Shape {
    size_t depth = 0;
    size_t key = 0;
};

size_t key_size(const struct sel_value *map, uint32_t i)
{
    const struct sel_value *key = sel_value_key_at(map, i);
    return sel_value_kind(key) == SEL_TEXT ? sel_value_str(key).n : 0;
}

Shape shape_of(const struct sel_value *root)
{
    struct Level {
        const struct sel_value *v;
        uint32_t next;
    };
    Level levels[SEL_VALUE_DEPTH_MAX + 2];
    Shape shape;
    size_t depth = 0;
    levels[depth++] = {root, 0};
    while (depth > 0) {
        Level *level = &levels[depth - 1];
        enum sel_kind kind = sel_value_kind(level->v);
        if ((kind != SEL_LIST && kind != SEL_MAP) || level->next == sel_value_count(level->v)) {
            depth--;
            continue;
        }
        const struct sel_value *child = kind == SEL_LIST ? sel_value_at(level->v, level->next)
                                                         : sel_value_val_at(level->v, level->next);
        if (kind == SEL_MAP)
            shape.key = std::max(shape.key, key_size(level->v, level->next));
        level->next++;
        kind = sel_value_kind(child);
        if (kind != SEL_LIST && kind != SEL_MAP)
            continue;
        if (depth == SEL_VALUE_DEPTH_MAX + 2)
            throw Refusal(SEL_EFAILED, "the result is nested too deep to be checked");
        levels[depth++] = {child, 0};
        shape.depth = std::max(shape.depth, depth);
    }
    return shape;
}

/* "<root>", "[a]", "[0]" as a JSON pointer, "/a/0". */
std::string pointer_of(const std::vector<std::string> &context)
{
    std::string pointer;
    for (size_t i = 1; i < context.size(); i++) {
        const std::string &part = context[i];
        bool is_bracketed = part.size() >= 2 && part.front() == '[' && part.back() == ']';
        pointer += "/" + (is_bracketed ? part.substr(1, part.size() - 2) : part);
    }
    return pointer;
}

/* The innermost fault comes first. valijson notes every fault with the whole path to it and copies
 * them upwards; a bound on both keeps a large or deep value from costing minutes. */
int report(const sel_schema *schema, const struct sel_value *value, struct sel_error *err)
{
    valijson::Validator validator;
    valijson::ValidationResults results;
    valijson::ValidationResults::Error first;
    try {
        (void)validator.validate(schema->compiled, Adapter(value), &results);
    } catch (const EnoughFaults &) {
    }
    if (!results.popError(first))
        return set_error(err, SEL_EFAILED, nullptr, "the result does not match its schema");
    std::string where = pointer_of(first.context);
    std::string text =
        (where.empty() ? "the result" : "the result at " + where) + ": " + first.description;
    return set_error(err, SEL_EFAILED, nullptr, text.c_str());
}

struct ValidateJob {
    const sel_schema *schema;
    const struct sel_value *value;
    struct sel_error *err;
    size_t depth;
    int r;
};

void validate(void *arg)
{
    ValidateJob *job = static_cast<ValidateJob *>(arg);
    job->r = guarded(nullptr, job->err, SEL_EFAILED, [job] {
        valijson::Validator validator;
        /* Without a list of results valijson stops at the first fault and makes no texts. */
        if (validator.validate(job->schema->compiled, Adapter(job->value), nullptr))
            return 0;
        if (job->depth > REPORT_DEPTH_MAX)
            return set_error(job->err, SEL_EFAILED, nullptr,
                             "the result does not match its schema; it is nested too deep to say "
                             "where");
        return report(job->schema, job->value, job->err);
    });
}

struct StackJob {
    void (*fn)(void *arg);
    void *arg;
};

extern "C" void *run_stack_job(void *arg)
{
    const StackJob *job = static_cast<const StackJob *>(arg);
    job->fn(job->arg);
    return nullptr;
}

} // namespace

int sel_schema_internal::run_on_stack(size_t size, void (*fn)(void *arg), void *arg)
{
    StackJob job = {fn, arg};
    pthread_attr_t attr;
    pthread_t thread;
    if (pthread_attr_init(&attr) != 0)
        return SEL_ENOMEM;
    size = std::max(std::min(size, STACK_MAX), STACK_MIN);
    int r = pthread_attr_setstacksize(&attr, (size + 0xffff) & ~size_t(0xffff));
    if (r == 0)
        r = pthread_create(&thread, &attr, run_stack_job, &job);
    pthread_attr_destroy(&attr);
    if (r != 0)
        return SEL_ENOMEM;
    pthread_join(thread, nullptr);
    return 0;
}

const struct sel_value *sel_schema_internal::empty_list()
{
    static const struct sel_value list = sel_value_from_list(nullptr, 0);
    return &list;
}

const struct sel_value *sel_schema_internal::empty_map()
{
    static const struct sel_value map = [] {
        struct sel_value v = {};
        v.o.type = MSGPACK_OBJECT_MAP;
        return v;
    }();
    return &map;
}

extern "C" int sel_schema_compile(const char *file, struct sel_str text, struct sel_schema **ret,
                                  struct sel_error *err)
{
    sel_schema *schema = new (std::nothrow) sel_schema;
    if (!schema)
        return set_error(err, SEL_ENOMEM, file, "out of memory");
    int r = guarded(file, err, SEL_ECONFIG, [=] { return compile(schema, file, text, err); });
    if (r < 0) {
        delete schema;
        return r;
    }
    *ret = schema;
    return 0;
}

extern "C" struct sel_schema *sel_schema_free(struct sel_schema *schema)
{
    delete schema;
    return nullptr;
}

extern "C" int sel_schema_validate(const struct sel_schema *schema, const struct sel_value *value,
                                   struct sel_error *err)
{
    return guarded(nullptr, err, SEL_EFAILED, [=] {
        Shape shape = shape_of(value ? value : &sel_value_null);
        ValidateJob job = {schema, value ? value : &sel_value_null, err, shape.depth, 0};
        size_t need = schema->chain * (shape.depth + 2) * FRAME +
                      (schema->has_key_patterns ? shape.key * KEY_FRAME : 0);
        if (need > STACK_MAX)
            throw Refusal(SEL_EFAILED, "the result is too deep, or a key in it too long, to be "
                                       "checked against its schema");
        if (need <= INLINE_STACK) {
            validate(&job);
            return job.r;
        }
        int r = run_on_stack(STACK_MIN + need, validate, &job);
        return r < 0 ? set_error(err, r, nullptr, "no memory for a thread") : job.r;
    });
}
