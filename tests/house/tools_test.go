package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEachClientOfATestIsInstalledByMakeTest: a test that needs a client which nobody
// installs is skipped for ever, or fails on the first machine that has not got it by chance.
func TestEachClientOfATestIsInstalledByMakeTest(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(root, "tests", "run.sh"))
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`for tool in ([^;]*);`).FindSubmatch(script)
	if list == nil {
		t.Fatal("tests/run.sh has no list of tools")
	}
	// With the system, wherever tests run: util-linux.
	known := append(strings.Fields(string(list[1])), "losetup", "mount", "umount", "fstrim")
	tests, err := filepath.Glob(filepath.Join(root, "tests", "blackbox", "*_test.go"))
	if err != nil || len(tests) == 0 {
		t.Fatal("no tests of real clients", err)
	}
	calls := regexp.MustCompile(`\bneed\(t((?:, "[^"]+")+)\)`)
	for _, name := range tests {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls.FindAllSubmatch(source, -1) {
			for _, tool := range strings.Split(strings.TrimPrefix(string(call[1]), ", "), ", ") {
				if tool = strings.Trim(tool, `"`); !slices.Contains(known, tool) {
					t.Errorf("%s needs %s, which tests/run.sh does not look for", filepath.Base(name), tool)
				}
			}
		}
	}
}
