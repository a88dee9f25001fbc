package main

import (
	"context"
	"fmt"
	"time"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/trust/repo"
)

type directorCommand struct {
	Init directorInit `cmd:"" help:"Make the keys and the root of a director, which orders patches for one customer's systems."`
}

type directorInit struct {
	Folder        string `arg:"" help:"New folder for keys and root." type:"path"`
	RootKeys      int    `default:"3" help:"How many root keys to make."`
	RootThreshold int    `default:"2" help:"How many of them must sign."`
}

func (c *directorInit) Run(ctx context.Context, k *kong.Kong) error {
	files, err := repo.DirectorCeremony{RootKeys: c.RootKeys, RootThreshold: c.RootThreshold}.Run(ctx, c.Folder, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(k.Stdout, "director root  %s (%d of %d keys)\n"+
		"director key   %s (for the platform's signer)\n"+
		"channel key    %s (for the platform)\n"+
		"Carry the director-root key files to machines of their own and remove them here.\n",
		files.Root, c.RootThreshold, c.RootKeys, files.Director, files.Channel)
	return err
}
