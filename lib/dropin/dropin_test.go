package dropin

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// TestSurvive: a panic is an error, for libxl to be told.
func TestSurvive(t *testing.T) {
	o := &operation{log: zerolog.Nop()} // without a call
	err := o.survive(t.Context())
	if err == nil || !strings.Contains(err.Error(), "panic") || errnoOf(err) == 0 {
		t.Errorf("%v, errno %d", err, errnoOf(err))
	}
}
