#!/bin/sh
# Installs the Livemend agent from @URL@, enrols this machine and
# starts the agent. Run it as root:
#
#   curl -fsS @URL@/install | LIVEMEND_KEY=... LIVEMEND_TRUST=... sh
#
# LIVEMEND_TRUST       digest that pins the server's key and the roots of trust
# LIVEMEND_KEY         a registration key, or
# LIVEMEND_KEY_FILE    a file that holds one, or
# LIVEMEND_TOKEN       a one-use token, with LIVEMEND_CUSTOMER, or
# LIVEMEND_CUSTOMER    a Customer ID alone: a person then has to approve.
# Without any of them the key is asked for at the terminal.
#
# It is safe to run again. It changes nothing before the package's hash is
# checked, and the agent believes nothing that LIVEMEND_TRUST does not pin.

set -eu

livemend_install() {
	url=@URL@
	version=@VERSION@

	[ "$(id -u)" = 0 ] || fail "this needs root; nothing was changed. Put sudo in front of sh (and keep the variables: sudo -E)."
	[ -n "${LIVEMEND_TRUST:-}" ] || fail "LIVEMEND_TRUST is not set; nothing was changed. Copy the whole command from the platform's page."
	for tool in curl dpkg sha256sum mktemp; do
		command -v "$tool" >/dev/null || fail "$tool is missing; nothing was changed. Install it and run this again."
	done

	arch=$(dpkg --print-architecture)
	case $arch in
	@CASES@
	*) fail "there is no agent for $arch here; nothing was changed." ;;
	esac
	ask_for_key

	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' HUP INT TERM
	package=livemend-agent_${version}_$arch.deb
	say "downloading $package"
	curl -fsS --max-filesize 16777216 -o "$work/$package" "$url/install/$package" ||
		fail "the package cannot be downloaded; nothing was changed."
	printf '%s  %s\n' "$sum" "$work/$package" | sha256sum -c - >/dev/null 2>&1 ||
		fail "the package is not the one that this script was made for (SHA-256 differs); nothing was changed. Get the command anew."
	say "installing it (SHA-256 $sum)"
	dpkg -i "$work/$package" >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		fail "dpkg could not install the package."
	}

	say "enrolling this machine with $url"
	livemend-agent enrol --server "$url" ||
		fail "the machine is not enrolled. The agent is installed but does not run; run this again, or remove it: apt-get purge livemend-agent"
	unset LIVEMEND_KEY LIVEMEND_TOKEN

	if [ -d /run/systemd/system ]; then
		systemctl enable livemend-agent.service >/dev/null 2>&1
		systemctl restart livemend-agent.service
		say "the agent runs as livemend-agent.service"
	else
		start_without_systemd
	fi
}

# Asks for a registration key when nothing else says who this machine belongs
# to. Standard input is this script, so ask at the terminal.
ask_for_key() {
	[ -z "${LIVEMEND_KEY:-}${LIVEMEND_KEY_FILE:-}${LIVEMEND_TOKEN:-}${LIVEMEND_CUSTOMER:-}" ] || return 0
	if ! (: </dev/tty) 2>/dev/null; then
		fail "there is no registration key, token or Customer ID; nothing was changed. Copy the whole command from the platform's page."
	fi
	printf 'Registration key: ' >/dev/tty
	echo=$(stty -g </dev/tty)
	stty -echo </dev/tty
	IFS= read -r LIVEMEND_KEY </dev/tty || LIVEMEND_KEY=
	stty "$echo" </dev/tty
	printf '\n' >/dev/tty
	[ -n "$LIVEMEND_KEY" ] || fail "no key was given; nothing was changed."
	export LIVEMEND_KEY
}

# Runs the agent in the background, in place of one that an earlier run started.
start_without_systemd() {
	log=/var/log/livemend-agent.log
	pidfile=/run/livemend-agent.pid
	if [ -r "$pidfile" ]; then
		old=$(cat "$pidfile")
		case $(readlink "/proc/$old/exe" 2>/dev/null) in
		/usr/sbin/livemend-agent*) kill "$old" && while kill -0 "$old" 2>/dev/null; do sleep 0.1; done ;;
		esac
	fi
	(umask 027 && : >>"$log")
	setsid livemend-agent run </dev/null >>"$log" 2>&1 &
	echo "$!" >"$pidfile"
	say "there is no systemd here, so the agent was started directly (process $!, log $log); start it at boot with: livemend-agent run"
}

say() { printf 'livemend: %s\n' "$*"; }

fail() {
	printf 'livemend: %s\n' "$*" >&2
	exit 1
}

# The last line, so that a download that breaks off does nothing.
livemend_install
