// Command livemend-agent is the agent of one server. This package holds
// subcommands, flags and wiring only; flags are read by hand because package
// flag would cost the agent's package 68 kB.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"livemend.dev/livemend/agent/kernel"
	"livemend.dev/livemend/trust"
)

// version is set at build time.
var version = "development"

const usage = `livemend-agent: live patches for this server

  livemend-agent enrol --server URL    make this server known to a platform
      reads LIVEMEND_TRUST and one of LIVEMEND_KEY, LIVEMEND_KEY_FILE,
      LIVEMEND_TOKEN, LIVEMEND_CUSTOMER; asks on the terminal when there is none
  livemend-agent run                   keep live patches in force, take orders
  livemend-agent status                what is live-patched here
  livemend-agent is-covered CVE        exit 0 when every process is protected
  livemend-agent policy check          read the local policy and say what it allows
  livemend-agent version

  --state DIR    where the agent keeps its state   (/var/lib/livemend)
  --run DIR      where it tells what is patched    (/run/livemend)
  --policy FILE  the server's own policy           (/etc/livemend/policy.json)
  --every TIME   between looks at the processes    (60s; run only)
  --wait TIME    for a person's approval           (1h; enrol only)
`

// errUsage says that the command line was not understood.
var errUsage = errors.New("the command line was not understood; nothing was done: livemend-agent help shows what there is")

// exit is an error that only sets the exit status.
type exit int

func (exit) Error() string { return "" }

func main() {
	if len(os.Args) == 2 && os.Args[1] == kernel.LoadArgument {
		os.Exit(kernel.LoadChild())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	var status exit
	switch {
	case errors.As(err, &status):
		os.Exit(int(status))
	case err != nil:
		say(os.Stderr, "livemend-agent: "+strings.ReplaceAll(err.Error(), "\n", ": ")+"\n")
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	o, words, err := parse(args)
	if err != nil {
		return err
	}
	switch name := strings.Join(words[:min(1, len(words))], ""); {
	case name == "enrol" && len(words) == 1:
		return enrolCommand(ctx, o)
	case name == "run" && len(words) == 1:
		return runCommand(ctx, o)
	case name == "status" && len(words) == 1:
		return statusCommand(o)
	case name == "is-covered" && len(words) == 2:
		return coveredCommand(o, words[1])
	case name == "policy" && len(words) == 2 && words[1] == "check":
		return policyCommand(o)
	case name == "version" && len(words) == 1:
		say(os.Stdout, "livemend-agent "+version+"\n")
		return nil
	case name == "help" || name == "":
		say(os.Stdout, usage)
		return nil
	}
	return errUsage
}

// options are the flags.
type options struct {
	server, state, run, policy string
	every, wait                time.Duration
}

// parse takes the flags, "--name value" or "--name=value", out of args.
func parse(args []string) (o options, words []string, err error) {
	o = options{state: "/var/lib/livemend", run: "/run/livemend", policy: "/etc/livemend/policy.json", every: time.Minute, wait: time.Hour}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--help" || arg == "-h" {
			return o, []string{"help"}, nil
		}
		name, isFlag := strings.CutPrefix(arg, "--")
		if !isFlag {
			words = append(words, arg)
			continue
		}
		name, value, given := strings.Cut(name, "=")
		if !given {
			if len(args) == 0 {
				return o, nil, errUsage
			}
			value, args = args[0], args[1:]
		}
		if err := o.set(name, value); err != nil {
			return o, nil, err
		}
	}
	return o, words, nil
}

func (o *options) set(name, value string) (err error) {
	switch name {
	case "server":
		o.server = strings.TrimRight(value, "/")
	case "state":
		o.state = value
	case "run":
		o.run = value
	case "policy":
		o.policy = value
	case "every":
		o.every, err = time.ParseDuration(value)
	case "wait":
		o.wait, err = time.ParseDuration(value)
	default:
		return errUsage
	}
	if err != nil || o.every < time.Second || o.wait < time.Second {
		return errUsage
	}
	return nil
}

// log writes one line for the system's administrator.
func log(text string) {
	say(os.Stderr, trust.FormatTime(time.Now())+" "+strings.ReplaceAll(text, "\n", ": ")+"\n")
}

// say writes to a terminal or a log; when nobody can read it there is nobody to
// tell.
func say(f *os.File, text string) { _, _ = f.WriteString(text) }
