package ondisk

import (
	"errors"
	"math"
	"testing"
)

func TestARecordIsMeasuredAgainstTheVolume(t *testing.T) {
	const chunk = 4 << 20
	m := Metadata{Version: VersionFenced, Name: "vol", VirtualSize: 64 * chunk, ChunkSize: chunk, ID: 9, Count: 3,
		ProviderSize: 1 << 30, ChunkCount: 255, ChunkNext: 2, ChunkReserved: 2}
	intent := func(k IntentKind, a, b uint64) Extension {
		return Extension{Intent: Intent{Kind: k, Arg: [8]uint64{a, b}}}
	}
	leave := func(k TaskKind, to uint64, comps ...uint32) Extension {
		e := Extension{Task: Task{Kind: k, ComponentCount: uint8(len(comps)), Arg: [8]uint64{0, to}}}
		copy(e.Task.Components[:], comps)
		return e
	}
	resize := func(size, force uint64) Extension {
		return Extension{Task: Task{Kind: TaskResize, Arg: [8]uint64{0, size, force}}}
	}
	lastMember := intent(IntentRemove, 2, 2)
	lastMember.Intent.Leaves, lastMember.Intent.Moves = 7, 7
	heir := leave(TaskReplace, 3, 0)
	heir.Intent = Intent{Kind: IntentReplaceZero, Arg: [8]uint64{3}, Leaves: 7, Moves: 8}
	both := leave(TaskEvacuate, 0, 3)
	both.Intent = intent(IntentRemove, 1, 3).Intent
	for name, c := range map[string]struct {
		e    Extension
		good bool
	}{
		"nothing":                      {Extension{}, true},
		"a removal":                    {intent(IntentRemove, 1, 2), true},
		"a removal that is committed":  {intent(IntentRemove, 1, 3), true},
		"a removal of component 0":     {intent(IntentRemove, 0, 2), false},
		"a removal of the last":        {intent(IntentRemove, 2, 2), false},
		"a removal of the last member": {lastMember, true},
		"a member that was the last and is component 0 now": {heir, true},
		"a removal of zeros":              {intent(IntentRemove, 0, 0), false},
		"a removal beyond":                {intent(IntentRemove, 1, 4), false},
		"a removal beyond 16 bits":        {intent(IntentRemove, 1, 1<<16|2), false},
		"a removal at the end of numbers": {intent(IntentRemove, 1, math.MaxUint64), false},
		"another component 0":             {intent(IntentReplaceZero, 2, 0), true},
		"itself":                          {intent(IntentReplaceZero, 0, 0), false},
		"one that is not there":           {intent(IntentReplaceZero, 3, 0), false},
		"a new id":                        {intent(IntentNewID, 8, 0), true},
		"a new id that is the old one":    {intent(IntentNewID, 9, 0), false},
		"an id of more than 32 bits":      {intent(IntentNewID, 1<<32, 0), false},
		"an intent that nobody has":       {intent(IntentGrow, 0, 0), false},
		"the last sequence number":        {Extension{Sequence: math.MaxUint64}, false},
		"an evacuation":                   {leave(TaskEvacuate, 0, 1, 2), true},
		"one of a component just removed": {leave(TaskEvacuate, 0, 3), true},
		"one amid a removal":              {both, true},
		"one of none":                     {leave(TaskEvacuate, 0), false},
		"one of the same twice":           {leave(TaskEvacuate, 0, 1, 1), false},
		"one of a component beyond":       {leave(TaskEvacuate, 0, 4), false},
		"a replacement":                   {leave(TaskReplace, 2, 1), true},
		"one by itself":                   {leave(TaskReplace, 1, 1), false},
		"one by a component beyond":       {leave(TaskReplace, 3, 1), false},
		"a size":                          {resize(128*chunk, 1), true},
		"no size":                         {resize(0, 0), false},
		"a size that is not rounded":      {resize(128*chunk+1, 0), false},
		"half a map sector":               {resize(65*chunk, 0), false},
		"a negative size":                 {resize(1<<63, 0), false},
		"all sizes":                       {resize(math.MaxUint64, 1), false},
		"a map beyond 16 bits":            {resize(1<<62, 0), false},
		"half forced":                     {resize(128*chunk, 2), false},
		"a negative rate":                 {Extension{Task: Task{Kind: TaskPack, Arg: [8]uint64{1 << 63}}}, false},
	} {
		if err := c.e.Validate(m, 512); (err == nil) != c.good || err != nil && !errors.Is(err, ErrExtensionContents) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
