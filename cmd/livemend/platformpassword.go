package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/alecthomas/kong"

	"livemend.dev/livemend/platform"
)

// platformPassword is for the administrator who lost theirs: whoever can read
// the platform's database may do it.
type platformPassword struct {
	Data     string `required:"" help:"Folder of the platform's files." type:"existingdir"`
	Database string `help:"sqlite:PATH or postgres://...; the default is a file in the data folder."`
	Name     string `arg:"" help:"Name of the account."`
}

func (c *platformPassword) Run(ctx context.Context, k *kong.Kong) (err error) {
	settings := platformSettings{platformFlags: platformFlags{Database: c.Database}, Data: c.Data}
	db, err := settings.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	user, err := platform.ResetPasswordOf(ctx, db, c.Name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(k.Stdout, "platform: account %s, one-time password %s\n", user.Name, user.OneTimePassword)
	return err
}
