#!/bin/sh
# Looks for known vulnerabilities in what is linked. Where the database cannot
# be reached it says so and passes.
set -eu

limit=120 # seconds
status=0
report=$(timeout "$limit" go tool -modfile=tools/go.mod govulncheck ./... 2>&1) || status=$?
case $status in
0) echo "govulncheck: nothing known" ;;
124) echo "govulncheck: skipped, its database did not answer within $limit s" ;;
*)
	case $report in
	*"fetching vulnerabilities"*) echo "govulncheck: skipped, its database cannot be reached from here" ;;
	*)
		printf '%s\n' "$report"
		exit 1
		;;
	esac
	;;
esac
