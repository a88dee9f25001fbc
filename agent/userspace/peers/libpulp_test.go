package peers

import "testing"

// TestLibpulp has every case of libpulp's list under its name there.
func TestLibpulp(t *testing.T) {
	shapes(t)
	middle(t)
	lifecycle(t)
	surroundings(t)
}
