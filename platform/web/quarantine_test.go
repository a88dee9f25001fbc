package web

import (
	"strings"
	"testing"
	"time"

	"livemend.dev/livemend/fleet"
	"livemend.dev/livemend/platform"
)

// The server's page says what is in quarantine there, and why, with the reason
// as text and not as markup.
func TestServerPageShowsQuarantine(t *testing.T) {
	detail := platform.ServerDetail{Server: sampleServers()[1].Server,
		Quarantined: []fleet.Quarantined{{Path: "user/aa/level-3.lmp", Level: 3, Reason: "process 7 died <b>", At: time.Unix(1_800_000_000, 0)}}}
	var page strings.Builder
	if err := serverPage(serverView{ServerDetail: detail, tab: "applied", now: time.Unix(1_800_003_600, 0)}).Render(t.Context(), &page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"in quarantine", "user/aa/level-3.lmp", "process 7 died &lt;b&gt;"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
