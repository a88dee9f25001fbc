package orders

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"livemend.dev/livemend/patch"
	"livemend.dev/livemend/patch/image"
	"livemend.dev/livemend/trust"
)

// Any flipped bit in an artifact is refused where it is downloaded: by the length
// and hash that were signed, whatever the reader of images would say.
func TestEveryFlippedBit(t *testing.T) {
	const buildID = "0123456789abcdef0123456789abcdef01234567"
	code := make([]byte, 64)
	for i := range code {
		code[i] = 0xc3
	}
	artifact, err := image.Encode(&image.File{
		BuildID: buildID, Arch: "amd64",
		Segments: []image.Segment{{Prot: image.ReadExec, Size: image.PageSize, Data: code}},
		Relocs:   []image.Reloc{{Off: 8, Base: image.Library, Form: image.Rel32, Addend: 4096}},
		Hunks:    []image.Hunk{{Name: "f", Off: 0x1000, Size: 32, New: 16, Entry: [16]byte{0x55}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(artifact)
	signed := trust.Target{Path: "user/" + buildID + "/level-1.lmp", Length: int64(len(artifact)), SHA256: hex.EncodeToString(sum[:])}
	take := func(b []byte) error {
		content := trust.NewContent(signed)
		if _, err := content.Write(b); err != nil {
			return err
		}
		if err := content.Close(); err != nil {
			return err
		}
		_, err := new(Executor).decode(signed.Path, b, signed.SHA256, patch.Target{BuildID: buildID}, 1)
		return err
	}
	if err := take(artifact); err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(artifact) {
		artifact[i/8] ^= 1 << (i % 8)
		if err := take(artifact); err == nil {
			t.Errorf("accepted with bit %d of byte %d flipped", i%8, i/8)
		}
		artifact[i/8] ^= 1 << (i % 8)
	}
	if take(artifact[:len(artifact)-1]) == nil || take(append(artifact, 0)) == nil {
		t.Error("accepted with a byte less or more")
	}
}
