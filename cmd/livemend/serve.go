package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"livemend.dev/livemend/portal"
	"livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/trust/repo"
)

// serveCommand runs portal and platform in one process, for trying out: it
// makes every key itself and keeps all of them in one folder.
type serveCommand struct {
	platformFlags
	Data         string `required:"" help:"Folder for everything." type:"path"`
	PortalListen string `default:"127.0.0.1:0" help:"Address for the portal; port 0 is any free one."`
}

func (c *serveCommand) Run(ctx context.Context, k *kong.Kong) (err error) {
	log := newLog()
	keys, director := filepath.Join(c.Data, "keys"), filepath.Join(c.Data, "director")
	if err := c.ceremonies(ctx, keys, director); err != nil {
		return err
	}
	p, err := openPortal(ctx, portalSettings{portalFlags: portalFlags{Data: filepath.Join(c.Data, "portal")},
		Root: filepath.Join(keys, "root.json"), OnlineKeys: keys}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	credential, err := c.credentials(ctx, p.service)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.PortalListen)
	if err != nil {
		return err
	}
	at := "http://" + listener.Addr().String()
	if _, err := fmt.Fprintf(k.Stdout, "portal: listening on %s\nThis is for trying out: portal and platform, and the keys of both signers, are in one place.\n", at); err != nil {
		return errors.Join(err, listener.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return endedBy(ctx, p.service.Run(ctx)) })
	group.Go(func() error { return serveHTTP(ctx, listener, p.handler, log) })
	group.Go(func() error {
		return runPlatform(ctx, k, platformSettings{platformFlags: c.platformFlags, Data: filepath.Join(c.Data, "platform"), Director: director,
			PortalRoot: filepath.Join(keys, "root.json"), PortalURL: at, Portal: client.New(at, credential, nil), BothInOne: true}, log)
	})
	return group.Wait()
}

// ceremonies makes the keys of repository and director at the first start.
func (c *serveCommand) ceremonies(ctx context.Context, keys, director string) error {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	absent := func(name string) bool {
		_, err := os.Stat(name)
		return errors.Is(err, fs.ErrNotExist)
	}
	if absent(filepath.Join(keys, "targets.json")) {
		if _, err := (repo.Ceremony{RootKeys: 3, RootThreshold: 2, TargetsKeys: 2, TargetsThreshold: 2}).Run(ctx, keys, time.Now()); err != nil {
			return err
		}
	}
	if absent(filepath.Join(director, "director-root.json")) {
		if _, err := (repo.DirectorCeremony{RootKeys: 3, RootThreshold: 2}).Run(ctx, director, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// credentials makes the partner's and the vendor's credential at the first
// start, keeps both in files and returns the partner's.
func (c *serveCommand) credentials(ctx context.Context, service *portal.Service) (string, error) {
	partner := filepath.Join(c.Data, "partner.credential")
	for path, scope := range map[string]portal.Scope{partner: portal.ScopePartner, filepath.Join(c.Data, "vendor.credential"): portal.ScopePublish} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return "", err
			}
			continue
		}
		text, err := service.AddPartner(ctx, string(scope), scope)
		if err != nil {
			return "", err
		}
		if err := writeNew(path, []byte(text+"\n")); err != nil {
			return "", err
		}
	}
	credential, err := readLimited(partner, maxCredential)
	return string(credential), err
}
