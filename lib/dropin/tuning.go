package dropin

import (
	"fmt"
	"os"

	"xenferry/lib/helper"
	"xenferry/lib/progress"
	"xenferry/lib/save"
)

// tuning is what the environment says of a save (helper.MaxIterationsEnv and its like).
type tuning struct {
	policy save.Threshold
	stats  progress.Output
}

// tuned reads the environment. It must be asked before this process opens anything.
func tuned(call *helper.Call) (t tuning, err error) {
	if call.Restore {
		return t, nil
	}
	iterations, err := helper.UintSetting(helper.MaxIterationsEnv, uint64(save.Default.MaxIterations))
	if err != nil {
		return t, err
	}
	dirty, err := helper.UintSetting(helper.MinDirtyEnv, uint64(save.Default.MinDirty))
	if err != nil {
		return t, err
	}
	t.policy = save.Threshold{MaxIterations: uint(iterations), MinDirty: int64(dirty)}
	if t.stats, err = progress.ParseOutput(os.Getenv(helper.StatsEnv), 0, 1, call.Stream); err != nil {
		return t, fmt.Errorf("%s: %w", helper.StatsEnv, err)
	}
	return t, nil
}
