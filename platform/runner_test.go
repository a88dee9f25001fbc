package platform_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"livemend.dev/livemend/access"
	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
	"livemend.dev/livemend/platform/platformtest"
	"livemend.dev/livemend/rollout"
	"livemend.dev/livemend/store"
	"livemend.dev/livemend/store/platformdb"
	"livemend.dev/livemend/store/storetest"
	"livemend.dev/livemend/trust"
)

// write changes a row behind the service's back.
func write(t *testing.T, db *store.DB, text string, args ...any) {
	t.Helper()
	if err := db.InTx(context.WithoutCancel(t.Context()), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), text, args...)
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestOnePoisonedTask makes the rows of one job unreadable while its order is
// signed: the jobs of everybody else must go on.
func TestOnePoisonedTask(t *testing.T) {
	dsn := storetest.SQLite(t)
	db := storetest.Open(t, dsn, platformdb.Migrations())
	var poisoned atomic.Value // System ID
	poisoned.Store("")
	p := platformtest.Start(t, dsn, func(c *platform.Config) {
		sign := c.Sign
		c.Sign = func(ctx context.Context, m *trust.Manifest) ([]byte, error) {
			if m.SystemID == poisoned.Load() {
				write(t, db, `UPDATE platform_job SET stages = 'x' WHERE organisation_id = (SELECT organisation_id FROM platform_server WHERE id = $1)`, m.SystemID)
			}
			return sign(ctx, m)
		}
	})
	other := p.Organisation("Other Ltd")
	a, b := enrolled(t, p, other, "a"), enrolled(t, p, p.Admin, "b")
	poisoned.Store(a.SystemID)
	p.PublishContent("oval.xml", []byte("<oval_definitions/>"))
	must[fleet.Job](t)(p.Service.ScanServers(t.Context(), other, platform.ScanRequest{}))
	job := must[fleet.Job](t)(p.Service.ScanServers(t.Context(), p.Admin, platform.ScanRequest{}))
	if order, _ := b.Work(); order.Job != "1" || job.ID != 1 { // each organisation counts its own
		t.Errorf("got order %+v", order)
	}
}

// TestUnreadableInventory: a task ends with the reason, instead of being tried
// for ever.
func TestUnreadableInventory(t *testing.T) {
	dsn := storetest.SQLite(t)
	db := storetest.Open(t, dsn, platformdb.Migrations())
	p := platformtest.Start(t, dsn, nil)
	m := enrolled(t, p, p.Admin, "a")
	importReport(t, p, p.Admin, m)
	p.PublishPatch(1)
	must[platform.CatalogueChange](t)(p.Service.RefreshCatalogue(t.Context(), p.Admin))
	write(t, db, `UPDATE platform_inventory SET snapshot = $1`, []byte("x"))
	job := must[fleet.Job](t)(p.Service.LivePatchFound(t.Context(), p.Admin, platform.PatchRequest{}))
	task := platformtest.Task(t, p.WaitJob(p.Admin, job.ID), m.SystemID)
	if task.State != rollout.Refused || platformtest.Outcomes(task)["target is in the inventory"] != fleet.CheckFailed {
		t.Errorf("%s: %s", task.State, task.Reason)
	}
}

// TestStopLetsGo stops a job whose task waits behind another order of its
// server: it ends at once, and no order is signed for it.
func TestStopLetsGo(t *testing.T) {
	storetest.EachDSN(t, func(t *testing.T, dsn string) {
		var signed atomic.Int64
		p := platformtest.Start(t, dsn, func(c *platform.Config) {
			sign := c.Sign
			c.Sign = func(ctx context.Context, m *trust.Manifest) ([]byte, error) {
				signed.Add(1)
				return sign(ctx, m)
			}
		})
		m := enrolled(t, p, p.Admin, "a")
		p.PublishContent("oval.xml", []byte("<oval_definitions/>"))
		scan := func(who access.Subject) int64 {
			return must[fleet.Job](t)(p.Service.ScanServers(t.Context(), who, platform.ScanRequest{})).ID
		}
		scan(p.Admin)
		m.Work()
		second := scan(p.Admin)
		if err := p.Service.StopJob(t.Context(), p.Admin, second); err != nil {
			t.Fatal(err)
		}
		job := p.WaitJob(p.Admin, second)
		if job.State != rollout.JobStopped || job.Tasks[0].State != rollout.Skipped || signed.Load() != 1 {
			t.Errorf("%s, task %s, %d orders signed", job.State, job.Tasks[0].State, signed.Load())
		}
	})
}

// TestCoverageCatchesUp loses the computed coverage of one server, as when the
// platform ends in the middle, and makes another's unreadable: after the next
// start the first is there again.
func TestCoverageCatchesUp(t *testing.T) {
	dsn := storetest.SQLite(t)
	db := storetest.Open(t, dsn, platformdb.Migrations())
	p := platformtest.Start(t, dsn, nil)
	broken, m := enrolled(t, p, p.Admin, "a"), enrolled(t, p, p.Admin, "b")
	importReport(t, p, p.Admin, broken, m)
	p.Stop()
	write(t, db, `DELETE FROM platform_coverage`)
	write(t, db, `UPDATE platform_inventory SET snapshot = $1 WHERE server_id = $2`, []byte("x"), broken.SystemID)
	p.Restart()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	for {
		page := must[fleet.Page[fleet.Coverage]](t)(p.Service.Coverage(t.Context(), p.Admin, platform.CoverageFilter{}))
		if len(page.Items) == 1 && page.Items[0].Server == m.SystemID {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("coverage after the start: %+v", page.Items)
		case <-time.After(20 * time.Millisecond): // ask again
		}
	}
}
