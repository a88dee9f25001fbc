package orders

import (
	"context"
	"strconv"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/trust"
	"livemend.dev/livemend/wire"
)

// scan runs a scanner with content that both director and portal name.
func (o *order) scan(ctx context.Context) error {
	if o.manifest.Path == "" {
		return refused(classScan, "this scanner needs content and the order names none")
	}
	target, _, err := o.resolve(ctx)
	if err != nil {
		return err
	}
	md, err := patch.ParseCustom(target.Custom)
	if err != nil {
		md = nil // no patch, as it should be
	}
	if err := trust.Agree(o.manifest, target, md); err != nil {
		return err
	}
	content, ok := patch.ParseContent(target.Custom)
	if !ok || content.Scanner != o.manifest.Scanner {
		return &trust.Refusal{What: "target " + target.Path, Err: trust.ErrDisagree, Detail: "it is not content for this scanner"}
	}
	o.progress(ctx, "download", strconv.FormatInt(target.Length, 10)+" bytes of scanner content, each checked against what was signed")
	definitions, err := o.platform.download(ctx, target)
	if err != nil {
		return err
	}
	o.progress(ctx, "scan", "running "+o.manifest.Scanner)
	o.report.Scan, err = o.x.Scanner.Run(ctx, o.manifest.Scanner, definitions)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		o.report.Outcome, o.report.Reason = wire.Failed, classScan
		o.report.Text = clip(err.Error(), wire.MaxMessage)
		return nil
	}
	o.report.Outcome, o.report.Text = wire.Done, "the scanner's report is attached"
	return nil
}
