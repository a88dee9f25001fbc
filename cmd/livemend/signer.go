package main

import (
	"context"
	"os"
	"time"

	"livemend.dev/livemend/signer"
)

type signerCommand struct {
	Role      signer.Role `required:"" enum:"online,director" help:"What to sign: online (snapshot and timestamp) or director (manifests)."`
	Keys      []string    `required:"" help:"Key file; may be given several times." type:"existingfile"`
	PerMinute int         `default:"600" help:"Most manifests to sign in a minute."`
}

// Run serves until standard input ends. It does not end on a signal: one for
// the whole process group must not take the keys away from a parent that is
// still finishing its work.
func (c *signerCommand) Run(ctx context.Context) error {
	if err := signer.Harden(); err != nil {
		return err
	}
	return signer.Serve(context.WithoutCancel(ctx),
		signer.Config{Role: c.Role, Keys: c.Keys, PerMinute: c.PerMinute, Now: time.Now}, os.Stdin, os.Stdout)
}
