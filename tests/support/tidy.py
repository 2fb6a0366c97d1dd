#!/usr/bin/env python3
"""tidy - the house rules that a machine can see, by text.

    tidy.py [ROOT]      reads all sources of the tree, prints `file:line: what is wrong`
    tidy.py --self-test shows that each rule finds what it is for

Ends with 1 if anything was found.
"""
import os
import re
import sys

# Which of our folders a folder may include. Others than these are refused.
BELOW = {
    "include": {"selinon"},
    "core": {"core", "selinon"},
    "proto": {"proto", "core", "selinon"},
    "storage": {"storage", "core", "selinon"},
    "worker": {"worker", "proto", "storage", "core", "selinon"},
    "broker": {"broker", "proto", "storage", "core", "selinon"},
    "client": {"client", "proto", "core", "selinon"},
    "cli": {"cli", "worker", "broker", "client", "proto", "storage", "core", "selinon"},
    "perf": {"perf", "worker", "broker", "client", "proto", "storage", "core", "selinon"},
    "tests": {"tests", "cli", "worker", "broker", "client", "proto", "storage", "core", "selinon"},
    "examples": {"selinon"},
}
OURS = set(BELOW) | {"selinon"}

# Foreign headers, and the files of each folder that may know them (one name: one place).
FOREIGN = {
    r"liburing": {"worker/ring.c", "worker/ring.h"},
    r"yaml\.h": {"core/yaml.c", "core/yaml_scalar.c", "cli/cmd_version.c"},
    r"yajl/": {"core/json.c", "core/json_write.c", "cli/cmd_version.c"},
    r"msgpack": {
        "core/value.h", "core/value.c", "core/value_codec.c", "cli/cmd_version.c",
    },
    r"lmdb\.h": {"storage/lmdb*", "storage/journal_lmdb.c", "cli/cmd_version.c"},
    r"(valijson|rapidjson)/": {"storage/schema*"},
    r"dlfcn\.h": {"worker/module.c"},
    r"zmq\.h|czmq\.h": {"broker/loop.c", "worker/link.c", "client/link.c", "client/query.c"},
}
# Tests and benchmarks look at libraries directly where they compare with them.
FOREIGN_FREE = ("tests/", "perf/")

# Functions, and the files that may call them.
BANNED = {
    "strcpy": set(), "strcat": set(), "sprintf": set(), "vsprintf": set(), "gets": set(),
    "atoi": set(), "atol": set(), "atof": set(), "strtok": set(), "assert": set(),
    "malloc": {"core/mem.c"}, "calloc": {"core/mem.c"}, "realloc": {"core/mem.c"},
    "exit": set(),
}
BANNED_FREE = ("tests/", "perf/") # other processes and other allocators are what they look at
BANNED_EVERYWHERE = {"strcpy", "strcat", "sprintf", "vsprintf", "gets", "atoi", "strtok"}

MARKERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
LINES_MAX = 1100 # asked about past 700
SOURCES = (".c", ".h", ".cc", ".hh", ".S")


def blank(text):
    """The text with comments and literals blanked, so that only code is left; and the line
    numbers of `//` comments."""
    out, slashes = [], []
    i, line, n = 0, 1, len(text)
    while i < n:
        c = text[i]
        two = text[i:i + 2]
        if two == "/*":
            end = text.find("*/", i + 2)
            end = n if end < 0 else end + 2
            piece = text[i:end]
        elif two == "//":
            slashes.append(line)
            end = text.find("\n", i)
            end = n if end < 0 else end
            piece = text[i:end]
            if piece.startswith("// namespace"): # clang-format writes these
                slashes.pop()
        elif c == "'" and i > 0 and text[i - 1].isalnum():
            end, piece = i + 1, c # a digit separator of C++
        elif c in "\"'":
            end = i + 1
            while end < n and text[end] != c and text[end] != "\n":
                end += 2 if text[end] == "\\" else 1
            end = min(end + 1, n)
            piece = text[i:end]
        else:
            out.append(c)
            line += c == "\n"
            i += 1
            continue
        out.append("".join("\n" if p == "\n" else " " for p in piece))
        line += piece.count("\n")
        i = end
    return "".join(out), slashes


def is_listed(path, names):
    return any(path == n or (n.endswith("*") and path.startswith(n[:-1])) for n in names)


def check_include(path, kind, name):
    folder = path.split("/")[0]
    first = name.split("/")[0]
    if folder == "tests" and name.startswith("tests/"):
        return None
    if kind == '"' and "/" not in name:
        return f'includes are written from the root, like "core/arena.h"; got "{name}"'
    if first in OURS and "/" in name and first not in BELOW.get(folder, OURS):
        return f"{folder}/ may not include {first}/: {name}"
    if first == "selinon" and kind == '"':
        return f"public headers are included as <{name}>"
    for foreign, homes in FOREIGN.items():
        if re.match(foreign, name) and not path.startswith(FOREIGN_FREE):
            if not is_listed(path, homes):
                return f"<{name}> belongs to {', '.join(sorted(homes))}"
    return None


def check_file(path, text):
    """Yields (line, complaint)."""
    code, slashes = blank(text)
    if not path.endswith(".S"):
        for line in slashes:
            yield line, "a // comment"
    for number, line in enumerate(text.split("\n"), 1):
        match = INCLUDE.match(line)
        if match:
            complaint = check_include(path, match.group(1), match.group(2))
            if complaint:
                yield number, complaint
        if MARKERS.search(line):
            yield number, "an unfinished marker"
    for number, line in enumerate(code.split("\n"), 1):
        for match in re.finditer(r"(?<![\w.>])(\w+)\s*\(", line):
            name = match.group(1)
            if name not in BANNED or path in BANNED[name]:
                continue
            if path.startswith(BANNED_FREE) and name not in BANNED_EVERYWHERE:
                continue
            yield number, f"{name}() is banned here"
    if path.endswith(".c"):
        yield from check_own_header(path, text)
    lines = text.count("\n")
    if lines > LINES_MAX:
        yield lines, f"{lines} lines; more than {LINES_MAX} are two modules"


def check_own_header(path, text):
    """A file with a header of its name includes it first."""
    header = path[:-2] + ".h"
    names = [m.group(2) for m in map(INCLUDE.match, text.split("\n")) if m]
    if header in names and names[0] != header:
        yield 1, f'its own header "{header}" comes first'


def tree(root):
    for folder in sorted(BELOW):
        for at, dirs, files in os.walk(os.path.join(root, folder)):
            dirs[:] = sorted(d for d in dirs if d not in ("corpus", "conformance"))
            for name in sorted(files):
                if name.endswith(SOURCES):
                    full = os.path.join(at, name)
                    yield os.path.relpath(full, root), full


def main(root):
    found = count = 0
    for path, full in tree(root):
        count += 1
        with open(full, encoding="utf-8") as stream:
            text = stream.read()
        for line, complaint in check_file(path, text):
            print(f"{path}:{line}: {complaint}")
            found += 1
    print(f"tidy: {count} files, {found} complaints")
    return 1 if found or count == 0 else 0


WRONG = [
    ("core/x.c", '#include "worker/loop.h"\n'),
    ("storage/x.c", '#include "worker/loop.h"\n'),
    ("worker/x.c", '#include "broker/router.h"\n'),
    ("worker/x.c", '#include "cli/cli.h"\n'),
    ("include/selinon/x.h", '#include "core/str.h"\n'),
    ("examples/a/a.c", '#include "core/str.h"\n'),
    ("core/x.c", '#include "str.h"\n'),
    ("core/x.c", '#include "selinon/base.h"\n'),
    ("worker/x.c", "#include <liburing.h>\n"),
    ("core/x.c", "#include <lmdb.h>\n"),
    ("core/x.c", "void f(char *p) { strcpy(p, p); }\n"),
    ("core/x.c", "void *f(void) { return malloc(1); }\n"),
    ("tests/unit/x.c", "int f(char *p) { return atoi(p); }\n"),
    ("cli/x.c", "void f(void) { exit(1); }\n"),
    ("core/x.c", "int x; // why\n"),
    ("core/x.c", "/* TO" + "DO: more */\n"),
    ("core/x.c", "#include <stdio.h>\n#include \"core/x.h\"\n"),
    ("core/x.c", "\n" * (LINES_MAX + 1)),
]
RIGHT = [
    ("worker/x.c", '#include "core/str.h"\n#include <selinon/task.h>\n#include <string.h>\n'),
    ("core/mem.c", "void *f(void) { return malloc(1); }\n"),
    ("core/x.c", 'const char *u = "http://x"; /* strcpy(a, b) */ int c = \'"\';\n'),
    ("core/x.c", "void f(void) { _exit(1); static_assert(1, \"\"); }\n"),
    ("worker/x.c", "void f(struct a *a) { a->exit(1); a->o.free(1); }\n"),
    ("tests/unit/x.c", "void *f(void) { return malloc(1); }\n"),
    ("storage/schema_x.cc", "#include <rapidjson/document.h>\nint x = 1'000;\n"),
]


def self_test():
    bad = 0
    for path, text in WRONG:
        if not list(check_file(path, text)):
            print(f"not found: {path}: {text[:60]!r}")
            bad += 1
    for path, text in RIGHT:
        for line, complaint in check_file(path, text):
            print(f"wrongly found: {path}:{line}: {complaint}")
            bad += 1
    print(f"tidy: {len(WRONG) + len(RIGHT)} examples, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
