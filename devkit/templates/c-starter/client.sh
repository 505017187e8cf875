#!/bin/sh
# A client of _projname_: sets the text through one node and reads it from
# another.
set -e
evernode dev input --node 1 "set ${1:-hello}"
evernode dev read --node 2 get
