package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"livemend.dev/livemend/channel"
	channelserver "livemend.dev/livemend/channel/server"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/agents"
	platformapi "livemend.dev/livemend/platform/api"
	"livemend.dev/livemend/platform/web"
	"livemend.dev/livemend/portal/client"
	"livemend.dev/livemend/signer"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust/repo"
)

type platformCommand struct {
	Serve         platformServe    `cmd:"" help:"Run the management platform."`
	ResetPassword platformPassword `cmd:"" help:"Give an account a new one-time password; it is shown once. The platform may be running."`
}

// platformFlags are what both platform and serve know of the platform.
type platformFlags struct {
	Listen          string        `default:"127.0.0.1:8480" help:"Address to listen on; port 0 is any free one."`
	Database        string        `help:"sqlite:PATH or postgres://...; the default is a file in the data folder."`
	Packages        string        `required:"" help:"Folder of the agent's packages." type:"path"`
	PublicURL       string        `help:"Address where agents reach this platform; the default is the one it listens on."`
	AgentsListen    string        `help:"Address for agents alone; needed with --tls-cert, since the agents' channel is encrypted by itself and not by TLS."`
	TLSCert         string        `help:"Certificate for pages and REST interface." type:"existingfile" and:"tls"`
	TLSKey          string        `help:"Key of the certificate." type:"existingfile" and:"tls"`
	CheckCommand    []string      `help:"External scanner for patches: program and arguments, given one by one; the file is added as the last."`
	Organisation    string        `default:"My organisation" help:"Name of the organisation that the first start makes."`
	Silence         time.Duration `default:"10m" help:"How long a server may say nothing about an order; at most an hour."`
	OrdersPerMinute int           `default:"600" help:"Most orders to sign in a minute."`
}

type platformServe struct {
	platformFlags
	Data           string `required:"" help:"Folder for the platform's files." type:"path"`
	Portal         string `required:"" help:"Address of the portal."`
	CredentialFile string `required:"" help:"File with the partner's credential." type:"existingfile"`
	Director       string `required:"" help:"Folder that livemend director init made." type:"existingdir"`
	PortalRoot     string `help:"The portal's root document, got from its operator. Without it the first start takes what the portal gives." type:"existingfile"`
}

func (c *platformServe) Run(ctx context.Context, k *kong.Kong) error {
	credential, err := readLimited(c.CredentialFile, maxCredential)
	if err != nil {
		return err
	}
	return runPlatform(ctx, k, platformSettings{platformFlags: c.platformFlags, Data: c.Data, Director: c.Director, PortalRoot: c.PortalRoot,
		PortalURL: c.Portal, Portal: client.New(c.Portal, string(credential), nil)}, newLog())
}

// platformSettings say where an open platform finds its things.
type platformSettings struct {
	platformFlags
	Data       string
	Director   string
	PortalRoot string
	PortalURL  string
	Portal     *client.Client
	BothInOne  bool
}

// runPlatform serves until ctx ends.
func runPlatform(ctx context.Context, k *kong.Kong, c platformSettings, log *slog.Logger) (err error) {
	if c.TLSCert != "" && c.AgentsListen == "" {
		return errors.New("with --tls-cert agents need an address of their own: give --agents-listen")
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	agentsListener := listener
	if c.AgentsListen != "" {
		if agentsListener, err = new(net.ListenConfig).Listen(ctx, "tcp", c.AgentsListen); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	if c.PublicURL == "" {
		c.PublicURL = "http://" + agentsListener.Addr().String()
	}
	p, err := openPlatform(ctx, c, log)
	if err != nil {
		return errors.Join(err, listener.Close(), agentsListener.Close())
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.announce(ctx, k, c, listener); err != nil {
		return errors.Join(err, listener.Close(), agentsListener.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return endedBy(ctx, p.service.Run(ctx)) })
	group.Go(func() error {
		<-ctx.Done()
		p.agents.Close()
		return nil
	})
	if c.AgentsListen != "" {
		group.Go(func() error { return serveHTTP(ctx, agentsListener, p.agents, log) })
	}
	group.Go(func() error { return servePages(ctx, listener, p.handler, c.TLSCert, c.TLSKey, log) })
	return group.Wait()
}

// endedBy forgets an error that only says that ctx ended.
func endedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// servePages serves pages, REST interface and, unless they have an address of
// their own, agents.
func servePages(ctx context.Context, listener net.Listener, handler http.Handler, cert, key string, log *slog.Logger) error {
	if cert == "" {
		return serveHTTP(ctx, listener, handler, log)
	}
	return serveHTTPS(ctx, listener, handler, cert, key, log)
}

// openedPlatform is a platform that is ready to serve.
type openedPlatform struct {
	service *platform.Service
	agents  *agents.Handler
	handler http.Handler
	closers []func() error
}

// openPlatform opens the database and starts the signer child, which alone
// reads the director's key.
func openPlatform(ctx context.Context, c platformSettings, log *slog.Logger) (_ *openedPlatform, err error) {
	p := &openedPlatform{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	master, err := masterKey(filepath.Join(c.Data, "master.key"))
	if err != nil {
		return nil, err
	}
	private, bundle, err := c.trust(ctx, log)
	if err != nil {
		return nil, err
	}
	db, err := c.database(ctx)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, db.Close)
	director, err := c.startSigner(ctx, log)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, director.Close)
	p.service, err = platform.New(platform.Config{DB: db, Portal: c.Portal, PortalURL: c.PortalURL, PublicURL: c.PublicURL, Folder: c.Data,
		Packages: c.Packages, MasterKey: master, Bundle: bundle, Sign: director.SignManifest, CheckCommand: c.CheckCommand,
		PerMinute: c.OrdersPerMinute, Silence: c.Silence, BothInOne: c.BothInOne, Log: log})
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, p.service.Close)
	key, err := channelserver.NewKey(private)
	if err != nil {
		return nil, err
	}
	p.agents = agents.New(p.service, []channelserver.Key{key}, log)
	p.handler, err = c.routes(p, log)
	return p, err
}

// routes puts pages, REST interface and agents under one address.
func (c *platformSettings) routes(p *openedPlatform, log *slog.Logger) (http.Handler, error) {
	secure := c.TLSCert != ""
	pages, err := web.New(p.service, web.Options{Logger: log, Secure: secure})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(platformapi.Prefix+"/", platformapi.New(p.service, platformapi.Options{Log: log, Secure: secure}))
	if c.AgentsListen == "" {
		for _, path := range []string{channel.Path, "/trust.json", "/install", "/install/"} {
			mux.Handle(path, p.agents)
		}
	}
	mux.Handle("/", pages)
	return mux, nil
}

func (c *platformSettings) database(ctx context.Context) (*store.DB, error) {
	dsn := c.Database
	if dsn == "" {
		dsn = "sqlite:" + filepath.Join(c.Data, "platform.db")
	}
	db, err := store.Open(ctx, dsn)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx, db, platformdb.Migrations()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (c *platformSettings) startSigner(ctx context.Context, log *slog.Logger) (*signer.Client, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program's file: %w", err)
	}
	// It ends after the last order was signed, not when ctx does.
	return signer.Start(context.WithoutCancel(ctx), []string{program, "signer", "--role", string(signer.Director),
		"--keys", repo.DirectorCeremony{}.DirectorFilesIn(c.Director).Director, "--per-minute", fmt.Sprint(c.OrdersPerMinute)}, log)
}

// announce makes the administrator at the first start and says where the
// platform listens.
func (p *openedPlatform) announce(ctx context.Context, k *kong.Kong, c platformSettings, listener net.Listener) error {
	first, err := p.service.SetUp(ctx, c.Organisation, "admin")
	if err != nil {
		return err
	}
	if first != nil {
		if _, err := fmt.Fprintf(k.Stdout, "platform: administrator %s, one-time password %s\n", first.Administrator, first.OneTimePassword); err != nil {
			return err
		}
	}
	at := url.URL{Scheme: "http", Host: listener.Addr().String()}
	if c.TLSCert != "" {
		at.Scheme = "https"
	}
	_, err = fmt.Fprintf(k.Stdout, "platform: listening on %s\n", &at)
	return err
}

// Close gives back what the platform holds, last opened first.
func (p *openedPlatform) Close() error {
	var err error
	for i := len(p.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, p.closers[i]())
	}
	return err
}
