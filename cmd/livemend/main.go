// Command livemend is the portal, the management platform, both in one, the
// author tools and the signer child. This package holds flags and wiring only;
// each command group has a file of its own.
package main

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands lists the command groups; each type is in the file of its name.
type commands struct {
	Repo     repoCommand     `cmd:"" help:"Keys and documents of a patch repository."`
	Director directorCommand `cmd:"" help:"Keys and root of a director."`
	Serve    serveCommand    `cmd:"" help:"Run portal and platform in one process, for trying out."`
	Platform platformCommand `cmd:"" help:"The partner's management platform."`
	Portal   portalCommand   `cmd:"" help:"The patch vendor's service."`
	Patch    patchCommand    `cmd:"" help:"Build, look at and publish live patches."`
	Content  contentCommand  `cmd:"" help:"Content for scanners."`
	Signer   signerCommand   `cmd:"" hidden:"" help:"Sign for the parent process (started by portal and platform)."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	k := kong.Parse(&commands{},
		kong.Name("livemend"),
		kong.Description("Live patches for running kernels and shared libraries, from a scanner's finding to proof."),
		kong.UsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)))
	k.FatalIfErrorf(k.Run())
}
