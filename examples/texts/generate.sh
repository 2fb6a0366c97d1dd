#!/bin/sh
# generate.sh FOLDER COUNT: makes COUNT texts, always the same ones. Every hundredth is large, every
# fiftieth a copy of the one before; all look an hour old, except for the last, which somebody seems
# to be writing just now.
set -eu
folder=$1
count=$2
mkdir -p "$folder"
awk -v folder="$folder" -v count="$count" '
    function draw(n) { seed = (seed * 16807) % 2147483647; return seed % n }
    function text(file, from, words,   w, line) {
        seed = from * 7919 + 1
        for (w = 0; w < words; w++) {
            line = line vocabulary[draw(size) + 1] (draw(12) ? " " : "\n")
            if (length(line) > 4000) { printf "%s", line > file; line = "" }
        }
        printf "%s\n", line > file
        close(file)
    }
    BEGIN {
        size = split("river stone lantern harbour winter orchard letter salt window morning " \
                     "copper meadow ferry echo cellar thunder needle amber quarry sparrow " \
                     "the a of and in over under beyond without", vocabulary, " ")
        for (i = 1; i <= count; i++)
            text(sprintf("%s/%05d.txt", folder, i), i % 50 == 7 ? i - 1 : i,
                 i % 100 == 0 ? 15000 : 120)
    }
'
find "$folder" -name '*.txt' -exec touch -d '1 hour ago' {} +
touch "$folder/$(printf '%05d' "$count").txt"
