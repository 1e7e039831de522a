package virstor

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gvirstor/gvirstor/geomlib/disktest"
)

// OfflineVerb is a verb of a package that is built on this one, done to the disks
// of a volume that nobody serves.
type OfflineVerb struct {
	Name string
	// Before damages the disks of a good volume.
	Before func(disks []*disktest.Disk) error
	// Do does the verb from whatever an interruption left to its end.
	Do func(disks []*disktest.Disk) error
	// Damaged: nobody is to open the volume before the verb is done. Else what
	// opens has to be right.
	Damaged bool
}

func (o OfflineVerb) verb() *verb {
	v := &verb{name: o.Name, components: []int64{6, 7, 5}, chunks: 8, offline: true, opens: openMaybe,
		damage: func(w *world) error { return o.Before(w.disks) },
		do:     func(w *world) error { return o.Do(w.disks) }}
	if o.Damaged {
		v.opens = openNever
	}
	return v
}

// CrashOffline interrupts an offline verb at every write. It returns what it did in
// words.
func CrashOffline(o OfflineVerb, seed uint64, short bool) (string, error) {
	var counts crashCounts
	b := usual
	if short {
		b = quick
	}
	err := verbRun(o.verb(), seed, b, Config{}, &counts)
	return fmt.Sprint(&counts), err
}

// thorough is the breadth of the soak.
var thorough = breadth{stride: 1, exact: 16, random: 8, goOn: 8, fill: 24, nest: 32, nested: 1, depth: 2, absent: 16}

// Soak runs the crash harness on seed after seed, on all processors. What a run
// does its seed decides.
type Soak struct {
	First    uint64        // seed
	Seeds    uint64        // how many; 0: as many as Duration lets
	Duration time.Duration // ignored when Seeds is given
	Offline  func() []OfflineVerb
	// Violation is told of each seed that finds one.
	Violation func(seed uint64, err error)
}

// Run returns what was done in words.
func (s Soak) Run() string {
	var counts crashCounts
	var next atomic.Uint64
	next.Store(s.First)
	end := time.Now().Add(s.Duration)
	var wg sync.WaitGroup
	var violations atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for s.Seeds > 0 || time.Now().Before(end) {
				seed := next.Add(1) - 1
				if s.Seeds > 0 && seed >= s.First+s.Seeds {
					return
				}
				if err := soakOne(seed, s.Offline, &counts); err != nil {
					violations.Add(1)
					s.Violation(seed, err)
				}
			}
		})
	}
	wg.Wait()
	each := float64(cpuTime()) / float64(max(1, counts.states.Load())) / float64(time.Millisecond)
	return fmt.Sprintf("soak: engine: %d seeds from %d; %s; %.2f ms of processor time a state; %d violations",
		counts.runs.Load(), s.First, &counts, each, violations.Load())
}

// cpuTime is what the process has taken of processors.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func soakOne(seed uint64, offline func() []OfflineVerb, counts *crashCounts) error {
	nth := seed / 7
	pick := verbs[nth%uint64(len(verbs))]
	switch seed % 7 {
	case 0:
		return crashRun(seed, crashWay{ops: 50, workers: 1}, thorough, Config{}, counts)
	case 1:
		return crashRun(seed, crashWay{ops: 100, faulty: nth%2 == 1}, thorough, Config{}, counts)
	case 2:
		return crashRun(seed, crashWay{ops: 40, workers: 1 - int(nth%2), jobs: true}, thorough, Config{}, counts)
	case 3:
		return errors.Join(verbRun(pick, seed, thorough, Config{}, counts), writelessRun(pick, nth, counts))
	case 4:
		return crashRun(seed, clientsWay(nth), thorough, clientsConfig(nth), counts)
	case 5:
		if nth%3 == 2 {
			return volRun(nth, poolWay{jobs: nth%2 == 1, doubt: nth%5 == 4}, 60, 8, Config{}, counts)
		}
		return snapRun(nth, poolWay{jobs: nth%2 == 1, doubt: nth%5 == 4}, 60, 8, Config{}, counts)
	default:
		list := offline()
		return verbRun(list[nth%uint64(len(list))].verb(), seed, thorough, Config{}, counts)
	}
}

// ReadAt reads from a snapshot.
func (w *View) ReadAt(p []byte, off int64) (int, error) {
	done := &waiter{ch: make(chan struct{}, 1)}
	done.r = Request{Op: OpRead, Flags: MayBlock, Offset: off, Length: int64(len(p)), Data: p, Done: done}
	w.Submit(&done.r)
	<-done.ch
	if done.r.Err != nil {
		return 0, done.r.Err
	}
	return len(p), nil
}
