package options

import (
	"maps"
	"slices"
	"strings"
)

// liveKeys are the ones that change while volumes are served.
var liveKeys = []string{
	"debug", "provider", "nbd-allow", "when-full", "full-timeout", "held-memory", "reserve",
	"alert-chunks", "alert-components", "alert-percent", "alert-time", "alert-window", "on-alert", "on-alert-timeout",
	"spare", "spare-at", "grow", "grow-max",
}

// Changes are the keys of Settings whose values differ, in order: those that take
// effect while volumes are served, and those that need a restart.
func Changes(before, after map[string]string) (live, later []string) {
	keys := maps.Clone(before)
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if before[key] == after[key] {
			continue
		}
		short := key[strings.LastIndexByte(key, ' ')+1:]
		if slices.Contains(liveKeys, short) {
			live = append(live, key)
		} else {
			later = append(later, key)
		}
	}
	return live, later
}
