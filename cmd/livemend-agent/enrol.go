package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"livemend.dev/livemend/agent/enrolment"
	"livemend.dev/livemend/agent/inventory"
	"livemend.dev/livemend/agent/state"
	"livemend.dev/livemend/enrol"
)

const maxLine = 4096 // bytes of a key file or of what is typed

func enrolCommand(ctx context.Context, o options) error {
	r := enrolment.Request{Server: o.server, Trust: os.Getenv("LIVEMEND_TRUST"), Version: version, Log: log}
	if r.Server == "" {
		return errUsage
	}
	if r.Trust == "" {
		return errors.New("LIVEMEND_TRUST is not set; nothing was done: copy the whole install command, it pins which server to believe")
	}
	if err := credential(&r); err != nil {
		return err
	}
	store, err := state.Open(o.state)
	if err != nil {
		return err
	}
	waiting, stop := context.WithTimeout(ctx, o.wait)
	defer stop()
	e, err := enrolment.Run(waiting, store, inventory.New(), r)
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	say(os.Stdout, "enrolled: this system is "+e.SystemID+" of "+e.Customer+"\n")
	return nil
}

// credential takes key or token from the environment, a file or the terminal,
// never from the command line, which every user of the system can read. A token
// or key stands for its customer; a Customer ID alone is only a name.
func credential(r *enrolment.Request) error {
	text := os.Getenv("LIVEMEND_KEY")
	if text == "" {
		text = os.Getenv("LIVEMEND_TOKEN")
	}
	if path := os.Getenv("LIVEMEND_KEY_FILE"); text == "" && path != "" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(f, maxLine))
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		text = string(b)
	}
	if r.Customer = os.Getenv("LIVEMEND_CUSTOMER"); text == "" && r.Customer != "" {
		return nil
	}
	r.Customer = ""
	if text == "" {
		var err error
		if text, err = prompt("Registration key or token: "); err != nil {
			return errors.New("no key was given (" + err.Error() + "); nothing was done: set LIVEMEND_KEY or LIVEMEND_KEY_FILE, or run it on a terminal")
		}
	}
	c, err := enrol.Parse(text)
	r.Credential = c
	return err
}

// prompt asks on the terminal without showing what is typed.
func prompt(question string) (answer string, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, tty.Close()) }()
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, before)) }()
	say(tty, question)
	defer say(tty, "\n")
	var line []byte
	for buf := make([]byte, 1); len(line) < maxLine; {
		n, err := tty.Read(buf)
		if err != nil {
			return "", err
		}
		if n == 1 && buf[0] == '\n' {
			return strings.TrimSpace(string(line)), nil
		}
		line = append(line, buf[:n]...)
	}
	return "", errors.New("the line is too long")
}
