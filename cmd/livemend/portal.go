package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"livemend.dev/livemend/blob"
	"livemend.dev/livemend/portal"
	"livemend.dev/livemend/portal/api"
	"livemend.dev/livemend/signer"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/portaldb"
	"livemend.dev/livemend/trust/repo"
)

type portalCommand struct {
	Serve   portalServe   `cmd:"" help:"Run the portal."`
	Partner partnerGroups `cmd:"" help:"The portal's partners."`
}

type partnerGroups struct {
	Add    partnerAdd    `cmd:"" help:"Make a credential for a partner, who is added when new; it is shown once."`
	Revoke partnerRevoke `cmd:"" help:"Make a credential unknown, at once."`
}

// portalFlags are what every portal command needs.
type portalFlags struct {
	Data     string `required:"" help:"Folder for the portal's files." type:"path"`
	Database string `help:"sqlite:PATH or postgres://...; the default is a file in the data folder."`
}

// database opens and migrates the portal's database.
func (f *portalFlags) database(ctx context.Context) (*store.DB, error) {
	if err := os.MkdirAll(f.Data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	dsn := f.Database
	if dsn == "" {
		dsn = "sqlite:" + filepath.Join(f.Data, "portal.db")
	}
	migrations, err := portaldb.Migrations()
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, dsn)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx, db, migrations); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

type partnerAdd struct {
	portalFlags
	Name   string `arg:"" help:"The partner's name; the same name is the same partner."`
	Vendor bool   `help:"A credential that publishes patches instead."`
}

func (c *partnerAdd) Run(ctx context.Context, k *kong.Kong) error {
	return c.withService(ctx, func(service *portal.Service) error {
		scope := portal.ScopePartner
		if c.Vendor {
			scope = portal.ScopePublish
		}
		credential, err := service.AddPartner(ctx, c.Name, scope)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(k.Stdout, credential)
		return err
	})
}

type partnerRevoke struct {
	portalFlags
	ID string `arg:"" help:"The credential's id: the part between its underscores."`
}

func (c *partnerRevoke) Run(ctx context.Context) error {
	return c.withService(ctx, func(service *portal.Service) error { return service.RevokeCredential(ctx, c.ID) })
}

// withService calls f with a service that has the database and no repository:
// enough for the operator's commands, which may run beside a serving portal.
func (f *portalFlags) withService(ctx context.Context, use func(*portal.Service) error) (err error) {
	db, err := f.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	service, err := portal.New(portal.Config{DB: db, Log: newLog(), Now: time.Now})
	if err != nil {
		return err
	}
	return use(service)
}

// portalSettings say where an open portal finds its things.
type portalSettings struct {
	portalFlags
	Root       string `required:"" help:"The repository's first root document." type:"existingfile"`
	Targets    string `help:"The first targets document; the default is targets.json beside the root." type:"path"`
	OnlineKeys string `required:"" help:"Folder of the online keys snapshot.key and timestamp.key." type:"existingdir"`
}

type portalServe struct {
	portalSettings
	Listen string `default:"127.0.0.1:8470" help:"Address to listen on; port 0 is any free one."`
}

func (c *portalServe) Run(ctx context.Context, k *kong.Kong) (err error) {
	log := newLog()
	p, err := openPortal(ctx, c.portalSettings, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(k.Stdout, "portal: listening on http://%s\n", listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.service.Run(ctx) })
	group.Go(func() error { return serveHTTP(ctx, listener, p.handler, log) })
	return group.Wait()
}

// openedPortal is a portal that is ready to serve.
type openedPortal struct {
	service *portal.Service
	handler http.Handler
	closers []func() error
}

// openPortal opens database and repository and starts the signer child, which
// alone reads the online keys.
func openPortal(ctx context.Context, c portalSettings, log *slog.Logger) (_ *openedPortal, err error) {
	p := &openedPortal{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	db, err := c.database(ctx)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, db.Close)
	online, err := c.startSigner(ctx, p, log)
	if err != nil {
		return nil, err
	}
	repository, err := repo.Open(filepath.Join(c.Data, "repo"), online)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, repository.Close)
	if err := c.publishFirst(ctx, repository); err != nil {
		return nil, err
	}
	staging, err := blob.Open(filepath.Join(c.Data, "staging"))
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, staging.Close)
	p.service, err = portal.New(portal.Config{DB: db, Repository: repository, Staging: staging, Log: log, Now: time.Now})
	if err != nil {
		return nil, err
	}
	// Before anybody asks: after a long pause the stored timestamp has expired.
	if err := p.service.Upkeep(ctx); err != nil {
		return nil, err
	}
	p.handler = api.New(p.service, repository.Files(), api.Options{Log: log, Now: time.Now, Limits: api.DefaultLimits()})
	return p, nil
}

func (c *portalSettings) startSigner(ctx context.Context, p *openedPortal, log *slog.Logger) (repo.Online, error) {
	program, err := os.Executable()
	if err != nil {
		return repo.Online{}, fmt.Errorf("finding this program's file: %w", err)
	}
	// It ends after the last request was answered, not when ctx does.
	child, err := signer.Start(context.WithoutCancel(ctx), []string{
		program, "signer", "--role", string(signer.Online),
		"--keys", filepath.Join(c.OnlineKeys, "snapshot.key"), "--keys", filepath.Join(c.OnlineKeys, "timestamp.key"),
	}, log)
	if err != nil {
		return repo.Online{}, err
	}
	p.closers = append(p.closers, child.Close)
	keys := child.Keys()
	if len(keys) != 2 {
		return repo.Online{}, fmt.Errorf("the signer has %d keys instead of 2", len(keys))
	}
	return repo.Online{Snapshot: keys[0], Timestamp: keys[1]}, nil
}

// publishFirst publishes the first documents; later starts change nothing.
func (c *portalSettings) publishFirst(ctx context.Context, repository *repo.Repository) error {
	targetsFile := c.Targets
	if targetsFile == "" {
		targetsFile = filepath.Join(filepath.Dir(c.Root), "targets.json")
	}
	root, err := readDocument(c.Root)
	if err != nil {
		return fmt.Errorf("reading the first root: %w", err)
	}
	targets, err := readDocument(targetsFile)
	if err != nil {
		return fmt.Errorf("reading the first targets document: %w", err)
	}
	if err := repository.Init(ctx, root, targets, time.Now()); err != nil {
		return fmt.Errorf("publishing the first documents: %w", err)
	}
	return nil
}

// Close gives back what the portal holds, last opened first.
func (p *openedPortal) Close() error {
	var err error
	for i := len(p.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, p.closers[i]())
	}
	return err
}
