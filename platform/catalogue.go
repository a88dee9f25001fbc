package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/trust/client"
)

// Times of the catalogue.
const (
	refreshTimeout = 2 * time.Minute
	// freshFor is how long a refresh counts as just made: twenty thousand tasks
	// need not ask the portal twenty thousand times.
	freshFor = 30 * time.Second
	// renewEvery keeps agents from seeing an expired timestamp.
	renewEvery = 10 * time.Minute
)

// freshness remembers the last refresh of this process, and why it failed.
type freshness struct {
	trusted *trust.Trusted
	err     error
	at      time.Time
}

// RefreshCatalogue is "Check for available Live Patches": it refreshes the
// portal's signed repository, keeps the verified files and maps them to the
// findings.
func (s *Service) RefreshCatalogue(ctx context.Context, who access.Subject) (CatalogueChange, error) {
	var out CatalogueChange
	if err := who.Require(access.Operator); err != nil {
		return out, err
	}
	if _, err := s.refresh(ctx, 0); err != nil {
		return out, &Problem{Err: fmt.Errorf("%w: %w", ErrPortal, err),
			Text: "The portal's repository could not be refreshed, or what it gave is not to be trusted (" + trust.Class(err) + "). The catalogue is as it was; try again, and look at the log when this stays."}
	}
	var since time.Time
	err := s.db.InTx(ctx, func(tx *store.Tx) (err error) {
		since, err = platformdb.Looked(ctx, tx, who.Organisation, s.now())
		if err != nil {
			return err
		}
		return s.audited(ctx, tx, who, "refresh.catalogue", "", "checked for available live patches")
	})
	if err != nil {
		return out, err
	}
	all, err := s.Catalogue(ctx, who)
	if err != nil {
		return out, err
	}
	out.CatalogueState, out.New, out.Withdrawn, out.Contents = all.CatalogueState, []fleet.Patch{}, []fleet.Patch{}, []fleet.Content{}
	for _, p := range all.Items {
		switch {
		case p.Withdrawn:
			out.Withdrawn = append(out.Withdrawn, p)
		case p.FirstSeen.After(since):
			out.New = append(out.New, p)
		}
	}
	for _, c := range all.Contents {
		if !c.Withdrawn && c.FirstSeen.After(since) {
			out.Contents = append(out.Contents, c)
		}
	}
	return out, nil
}

// refresh brings the catalogue up to date and returns what the repository says
// now. A refresh not older than age is good enough, a failed one too.
func (s *Service) refresh(ctx context.Context, age time.Duration) (*trust.Trusted, error) {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	if age > 0 && !s.fresh.at.IsZero() && s.now().Sub(s.fresh.at) < age {
		return s.fresh.trusted, s.fresh.err
	}
	trusted, err := s.fetchRepository(ctx)
	if err == nil {
		err = s.mirror.publish()
	}
	if err != nil {
		s.log.ErrorContext(ctx, "refreshing the portal's repository", "class", trust.Class(err), "error", err)
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.fresh = freshness{err: err, at: s.now()}
		}
		return nil, errors.Join(err, s.noteRefresh(context.WithoutCancel(ctx), err))
	}
	changed, err := s.takeIn(ctx, trusted)
	if err != nil {
		return nil, err
	}
	s.fresh = freshness{trusted: trusted, at: s.now()}
	if changed {
		s.behind.Store(true)
	}
	s.catchUp(ctx)
	return trusted, nil
}

func (s *Service) fetchRepository(ctx context.Context) (*trust.Trusted, error) {
	ctx, stop := context.WithTimeout(ctx, refreshTimeout)
	defer stop()
	return client.Refresh(ctx, s.mirror, s.portal, trust.Ed25519(), s.now())
}

// noteRefresh stores why a refresh failed.
func (s *Service) noteRefresh(ctx context.Context, reason error) error {
	return s.db.InTx(ctx, func(tx *store.Tx) error {
		state, err := platformdb.Catalogue(ctx, tx)
		if err != nil {
			return err
		}
		state.Error = "the last refresh failed (" + trust.Class(reason) + "); the catalogue is as it was before"
		return platformdb.SetCatalogue(ctx, tx, state)
	})
}

// takeIn stores what the repository names and reports whether that is new.
func (s *Service) takeIn(ctx context.Context, trusted *trust.Trusted) (changed bool, err error) {
	err = s.db.InTx(ctx, func(tx *store.Tx) error {
		changed = false
		old, err := platformdb.Targets(ctx, tx)
		if err != nil {
			return err
		}
		known := map[string]platformdb.Target{}
		for _, t := range old {
			known[t.Path] = t
		}
		var texts []string
		for t := range trusted.Targets() {
			row := platformdb.Target{Path: t.Path, SHA256: t.SHA256, SHA512: t.SHA512, Length: t.Length, Custom: string(t.Custom.JSON()), FirstSeen: s.now()}
			before, ok := known[t.Path]
			delete(known, t.Path)
			if ok && before.WithdrawnAt.IsZero() && before.SHA256 == row.SHA256 && before.Custom == row.Custom && before.Length == row.Length {
				continue
			}
			changed = true
			texts = append(texts, "the portal offers "+t.Path)
			if err := platformdb.PutTarget(ctx, tx, row); err != nil {
				return err
			}
		}
		for path, t := range known {
			if !t.WithdrawnAt.IsZero() {
				continue
			}
			changed = true
			texts = append(texts, "the portal withdrew "+path)
			if err := platformdb.WithdrawTarget(ctx, tx, path, s.now()); err != nil {
				return err
			}
		}
		if err := s.catalogueEvents(ctx, tx, texts); err != nil {
			return err
		}
		return platformdb.SetCatalogue(ctx, tx, platformdb.CatalogueState{RefreshedAt: s.now(), Version: trusted.TargetsVersion()})
	})
	return changed, err
}

// maxCatalogueEvents bounds the events of one refresh; the rest is summed up.
const maxCatalogueEvents = 20

func (s *Service) catalogueEvents(ctx context.Context, tx *store.Tx, texts []string) error {
	orgs, err := platformdb.Organisations(ctx, tx)
	if err != nil {
		return err
	}
	slices.Sort(texts)
	if n := len(texts); n > maxCatalogueEvents {
		texts = append(texts[:maxCatalogueEvents], "and "+strconv.Itoa(n-maxCatalogueEvents)+" more changes of the catalogue")
	}
	for _, org := range orgs {
		for _, text := range texts {
			if err := platformdb.AddEvent(ctx, tx, org.ID, fleet.Event{Kind: "catalogue", Text: text, At: s.now()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Catalogue lists what the portal offers, as last verified.
func (s *Service) Catalogue(ctx context.Context, who access.Subject) (Catalogue, error) {
	if err := who.Require(access.Viewer); err != nil {
		return Catalogue{}, err
	}
	state, err := platformdb.Catalogue(ctx, s.db)
	if err != nil {
		return Catalogue{}, err
	}
	out := Catalogue{CatalogueState: CatalogueState{RefreshedAt: state.RefreshedAt, Version: state.Version, Error: state.Error},
		Items: []fleet.Patch{}, Contents: []fleet.Content{}}
	blocks, err := platformdb.Blocks(ctx, s.db, who.Organisation)
	if err != nil {
		return Catalogue{}, err
	}
	targets, err := platformdb.Targets(ctx, s.db)
	if err != nil {
		return Catalogue{}, err
	}
	for _, t := range targets {
		custom, err := cjson.Parse([]byte(t.Custom))
		if err != nil {
			return Catalogue{}, fmt.Errorf("reading the stored target %s: %w", t.Path, err)
		}
		if c, ok := patch.ParseContent(custom); ok {
			out.Contents = append(out.Contents, fleet.Content{Path: t.Path, Scanner: c.Scanner, Format: c.Format, Title: c.Title,
				Length: t.Length, SHA256: t.SHA256, FirstSeen: t.FirstSeen, Withdrawn: !t.WithdrawnAt.IsZero()})
			continue
		}
		m, err := patch.ParseCustom(custom)
		if err != nil {
			continue // another kind of target, or a patch from a newer author tool: not offered
		}
		out.Items = append(out.Items, showPatch(t, m, blocks[t.Path]))
		if t.WithdrawnAt.IsZero() {
			out.Patches++
		}
	}
	slices.SortFunc(out.Items, func(a, b fleet.Patch) int {
		if c := b.FirstSeen.Compare(a.FirstSeen); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	return out, nil
}

func showPatch(t platformdb.Target, m *patch.Metadata, blocked string) fleet.Patch {
	p := fleet.Patch{Path: t.Path, ID: m.ID, Kind: string(m.Kind), BuildID: string(m.Target.BuildID), Arch: m.Target.Arch, Release: m.Target.Release,
		Library: m.Target.Library, Level: m.Level, Fixes: []fleet.Fix{}, Functions: []string{}, Description: m.Description, Builder: m.Provenance.Builder,
		Length: t.Length, SHA256: t.SHA256, FirstSeen: t.FirstSeen, Withdrawn: !t.WithdrawnAt.IsZero(), Blocked: blocked}
	for _, f := range m.Fixes {
		p.Fixes = append(p.Fixes, fleet.Fix{CVE: string(f.CVE), Severity: f.Severity, Component: f.Component, Distribution: f.Distribution, FixedVersion: f.FixedVersion})
	}
	for _, f := range m.Functions {
		p.Functions = append(p.Functions, f.Name)
	}
	return p
}

// Patch returns one live patch of the catalogue by its target path.
func (s *Service) Patch(ctx context.Context, who access.Subject, path string) (fleet.Patch, error) {
	all, err := s.Catalogue(ctx, who)
	if err != nil {
		return fleet.Patch{}, err
	}
	i := slices.IndexFunc(all.Items, func(p fleet.Patch) bool { return p.Path == path })
	if i < 0 {
		return fleet.Patch{}, missing(store.ErrNotFound, "live patch")
	}
	return all.Items[i], nil
}

// BlockPatch refuses a live patch for this organisation, with a reason; an empty
// reason allows it again. What is applied stays applied.
func (s *Service) BlockPatch(ctx context.Context, who access.Subject, path, reason string) error {
	if err := who.Require(access.Operator); err != nil {
		return err
	}
	reason, err := checkNote(reason)
	if err != nil {
		return err
	}
	if _, err := s.Patch(ctx, who, path); err != nil {
		return err
	}
	text := "allowed live patch " + path + " again"
	if reason != "" {
		text = "blocked live patch " + path + ": " + reason
	}
	err = s.deed(ctx, who, "block.patch", path, text, "catalogue", func(tx *store.Tx) error {
		return platformdb.SetBlock(ctx, tx, who.Organisation, path, reason)
	})
	if err != nil {
		return err
	}
	s.recomputeOrganisation(ctx, who.Organisation)
	return nil
}

// ImportUpdates adds or replaces package updates of the partner's own metadata
// and returns how many there are now.
func (s *Service) ImportUpdates(ctx context.Context, who access.Subject, updates []fleet.Update) (int64, error) {
	if err := who.Require(access.Operator); err != nil {
		return 0, err
	}
	if len(updates) > MaxUpdates {
		return 0, problem(ErrInput, "One import has at most %d updates. Nothing was changed; send them in parts.", MaxUpdates)
	}
	for _, u := range updates {
		for _, field := range []string{u.CVE, u.Component, u.Distribution, u.FixedVersion} {
			if field == "" || len(field) > patch.MaxName {
				return 0, problem(ErrInput, "An update needs a vulnerability, a component, a distribution and a fixed version of at most %d bytes each. Nothing was changed.", patch.MaxName)
			}
		}
	}
	err := s.deed(ctx, who, "import.updates", "", fmt.Sprintf("imported %d package updates", len(updates)), "catalogue", func(tx *store.Tx) error {
		for _, u := range updates {
			if err := platformdb.PutUpdate(ctx, tx, who.Organisation, u); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	s.recomputeOrganisation(ctx, who.Organisation)
	_, total, err := platformdb.Updates(ctx, s.db, who.Organisation, 0, 1)
	return total, err
}

// Updates lists the package updates of the partner's own metadata.
func (s *Service) Updates(ctx context.Context, who access.Subject, list List) (fleet.Page[fleet.Update], error) {
	var page fleet.Page[fleet.Update]
	if err := who.Require(access.Viewer); err != nil {
		return page, err
	}
	offset, err := numberAfter(list.After, 0)
	if err != nil {
		return page, err
	}
	limit := pageLimit(list.Limit)
	page.Items, page.Total, err = platformdb.Updates(ctx, s.db, who.Organisation, int(offset), limit)
	page.Next = nextOffset(offset, len(page.Items), page.Total)
	return page, err
}

// nextOffset is the Next of a list that is continued by counting.
func nextOffset(offset int64, got int, total int64) string {
	if end := offset + int64(got); got > 0 && end < total {
		return strconv.FormatInt(end, 10)
	}
	return ""
}
