#!/bin/sh
# A task in shell: standard input is one JSON object with node_args, standard output is the result.
# Exit status 0 is success, 75 asks for another try, 76 is fatal, any other is a failure.
path=$(sed -n 's/.*"node_args": *{[^}]*"path": *"\([^"\\]*\)".*/\1/p')
if [ ! -r "$path" ]; then
    echo '{"class": "FileNotFound", "message": "the file has gone"}' >&2
    exit 1
fi
awk -v q='"' '
    { n = length($0); if (n > longest) longest = n; if (n == 0) blank++ }
    END { printf "{%slongest_line%s: %d, %sblank_lines%s: %d}\n", q, q, longest, q, q, blank }
' "$path"
