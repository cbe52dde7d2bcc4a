package helper

import (
	"fmt"
	"os"
	"strconv"
)

// Variables by which whoever starts a helper, or its toolstack, may say more than libxl's command line can carry.
const (
	MaxIterationsEnv = "XENFERRY_MAX_ITERATIONS" // rounds at most while the guest runs
	MinDirtyEnv      = "XENFERRY_MIN_DIRTY"      // suspend once fewer pages are dirty
	StatsEnv         = "XENFERRY_STATS"          // where statistics go: FILE or fd:N
)

// UintSetting is the number in one of the variables; otherwise, if that is not set or empty.
func UintSetting(name string, otherwise uint64) (uint64, error) {
	word := os.Getenv(name)
	if word == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s=%s: want a number", name, word)
	}
	return n, nil
}
