/* The parts of a URL, found as the original's library (Python 3.11, urllib.parse) finds them:
 * leading blanks and control characters are dropped, tabs and line ends everywhere; a scheme needs
 * a letter first; whatever follows `//` up to `/`, `?` or `#` is the network location; parameters
 * behind `;` are cut off the last segment of the path where the scheme has parameters.
 *
 * Nothing is copied: parts are pieces of the text as written, and whoever reads a piece skips the
 * characters that count as dropped. */
#include <arpa/inet.h>

#include "core/predicate_internal.h"

static bool is_dropped(char c)
{
    return c == '\t' || c == '\r' || c == '\n';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_scheme_char(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Whether a piece, without its dropped characters and perhaps in lower case, is `expected`. */
static bool piece_is(struct sel_str piece, bool fold, struct sel_str expected)
{
    size_t at = 0;
    for (size_t i = 0; i < piece.n; i++) {
        if (is_dropped(piece.p[i]))
            continue;
        char c = fold ? lower(piece.p[i]) : piece.p[i];
        if (at == expected.n || expected.p[at] != c)
            return false;
        at++;
    }
    return at == expected.n;
}

static struct sel_str head(struct sel_str s, size_t n)
{
    return (struct sel_str){s.p, n};
}

static struct sel_str tail(struct sel_str s, size_t from)
{
    return (struct sel_str){s.p + from, s.n - from};
}

/* Where the first character of `set` stands, s.n if none does. */
static size_t find_any(struct sel_str s, const char *set)
{
    size_t i = 0;
    while (i < s.n && (s.p[i] == '\0' || !strchr(set, s.p[i])))
        i++;
    return i;
}

/* Takes the scheme and its colon off `rest`; leaves both alone if there is none. */
static void take_scheme(struct sel_str *rest, struct sel_str *ret_scheme)
{
    size_t colon = find_any(*rest, ":");
    if (colon == 0 || colon == rest->n || !is_letter(rest->p[0]))
        return;
    for (size_t i = 0; i < colon; i++) {
        if (!is_scheme_char(rest->p[i]) && !is_dropped(rest->p[i]))
            return;
    }
    *ret_scheme = head(*rest, colon);
    *rest = tail(*rest, colon + 1);
}

/* Takes `//` and the network location off `rest`. */
static void take_netloc(struct sel_str *rest, struct sel_str *ret_netloc)
{
    size_t at = 0;
    for (int slashes = 0; slashes < 2; slashes++) {
        while (at < rest->n && is_dropped(rest->p[at]))
            at++;
        if (at == rest->n || rest->p[at] != '/')
            return;
        at++;
    }
    *rest = tail(*rest, at);
    size_t end = find_any(*rest, "/?#");
    *ret_netloc = head(*rest, end);
    *rest = tail(*rest, end);
}

/* `v`, hexadecimal digits, a dot and something more. */
static bool is_future_address(struct sel_str piece)
{
    size_t digit_count = 0, rest_count = 0;
    bool has_dot = false;
    for (size_t i = 1; i < piece.n; i++) {
        char c = piece.p[i];
        if (is_dropped(c))
            continue;
        if (has_dot)
            rest_count++;
        else if (c == '.')
            has_dot = true;
        else if ((c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'f'))
            digit_count++;
        else
            return false;
    }
    return digit_count > 0 && rest_count > 0;
}

/* Whether `piece` is what may stand in brackets: an IPv6 address, with a zone or without, or an
 * address of a future version. */
static bool is_bracket_host(struct sel_str piece)
{
    while (piece.n > 0 && is_dropped(piece.p[0]))
        piece = tail(piece, 1);
    if (piece.n > 0 && piece.p[0] == 'v')
        return is_future_address(piece);

    size_t percent = find_any(piece, "%");
    struct sel_str zone = tail(piece, percent);
    if (zone.n > 0 &&
        (piece_is(zone, false, SEL_STR("%")) || find_any(tail(zone, 1), "%") != zone.n - 1))
        return false;
    char host[64]; /* an IPv6 address has at most 45 characters */
    size_t n = 0;
    for (size_t i = 0; i < percent; i++) {
        if (is_dropped(piece.p[i]))
            continue;
        if (piece.p[i] == '\0' || n == sizeof(host) - 1)
            return false;
        host[n++] = piece.p[i];
    }
    host[n] = '\0';
    struct in6_addr address;
    return inet_pton(AF_INET6, host, &address) == 1;
}

static bool has_good_brackets(struct sel_str netloc)
{
    size_t open = find_any(netloc, "["), close = find_any(netloc, "]");
    if (open == netloc.n && close == netloc.n)
        return true;
    if (open == netloc.n || close == netloc.n)
        return false;
    struct sel_str inside = tail(netloc, open + 1);
    return is_bracket_host(head(inside, find_any(inside, "]")));
}

/* Characters whose compatibility form (NFKC) holds one of / ? # @ : and so could move the end of
 * the network location; all of them that Unicode has. */
static const char delimiter_lookalikes[][4] = {
    "\u2047", "\u2048", "\u2049", "\u2100", "\u2101", "\u2105", "\u2106",
    "\u2a74", "\ufe13", "\ufe16", "\ufe55", "\ufe56", "\ufe5f", "\ufe6b",
    "\uff03", "\uff0f", "\uff1a", "\uff1f", "\uff20",
};

static bool has_lookalike(struct sel_str netloc)
{
    for (size_t i = 0; i + 3 <= netloc.n; i++) {
        unsigned char first = (unsigned char)netloc.p[i];
        if (first != 0xe2 && first != 0xef)
            continue;
        for (size_t k = 0; k < SEL_COUNT(delimiter_lookalikes); k++) {
            if (memcmp(netloc.p + i, delimiter_lookalikes[k], 3) == 0)
                return true;
        }
    }
    return false;
}

static bool scheme_has_params(struct sel_str scheme)
{
    static const char *const schemes[] = {
        "",     "ftp",   "hdl",   "prospero", "http", "imap", "https", "shttp",
        "rtsp", "rtsps", "rtspu", "sip",      "sips", "mms",  "sftp",  "tel",
    };
    for (size_t i = 0; i < SEL_COUNT(schemes); i++) {
        if (piece_is(scheme, true, sel_str_c(schemes[i])))
            return true;
    }
    return false;
}

static struct sel_str without_params(struct sel_str path)
{
    size_t segment = path.n; /* where the last segment begins */
    while (segment > 0 && path.p[segment - 1] != '/')
        segment--;
    return head(path, segment + find_any(tail(path, segment), ";"));
}

bool sel_url_part_is(struct sel_str url, enum sel_url_part part, struct sel_str expected)
{
    struct sel_str rest = url;
    while (rest.n > 0 && (unsigned char)rest.p[0] <= ' ')
        rest = tail(rest, 1);

    struct sel_str scheme = {"", 0}, netloc = {"", 0};
    take_scheme(&rest, &scheme);
    take_netloc(&rest, &netloc);
    if (!has_good_brackets(netloc) || has_lookalike(netloc))
        return false;

    if (part == SEL_URL_SCHEME)
        return piece_is(scheme, true, expected);
    if (part == SEL_URL_NETLOC)
        return piece_is(netloc, false, expected);
    struct sel_str path = head(rest, find_any(rest, "?#"));
    if (scheme_has_params(scheme))
        path = without_params(path);
    return piece_is(path, false, expected);
}
