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
	tests = append(tests, filepath.Join(root, "tests", "browser", "browser_linux.go"))
	calls := regexp.MustCompile(`\b(?:need\(t|exec\.LookPath\()((?:(?:, )?"[^"]+")+)\)`)
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

// TestCIInstallsWhatMakeTestDoes: otherwise a test runs in one of them alone.
func TestCIInstallsWhatMakeTestDoes(t *testing.T) {
	installed := func(path ...string) []string {
		text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
		if err != nil {
			t.Fatal(err)
		}
		var packages []string
		for _, m := range regexp.MustCompile(`apt-get install ((?:.*\\\n)*.*)`).FindAllSubmatch(text, -1) {
			packages = append(packages, strings.Fields(strings.ReplaceAll(string(m[1]), "\\\n", " "))...)
		}
		return packages
	}
	ci, all := installed(".ci", "run"), installed("tests", "run.sh")
	if len(all) < 5 {
		t.Fatalf("tests/run.sh installs %q", all)
	}
	for _, name := range all {
		if !slices.Contains(ci, name) {
			t.Errorf(".ci/run does not install %s", name)
		}
	}
}

// TestEachCaseOfKyuaCleansUp: atf_test_case defines the cleanup of a case as nothing, so that
// what was defined before is not called, and what a case leaves is the next one's.
func TestEachCaseOfKyuaCleansUp(t *testing.T) {
	programs, err := filepath.Glob(filepath.Join(root, "tests", "freebsd", "*_test"))
	if err != nil || len(programs) == 0 {
		t.Fatal("no programs of kyua's", err)
	}
	declared := regexp.MustCompile(`(?m)^atf_test_case (\w+) cleanup$`)
	for _, name := range append(programs, filepath.Join(root, "tests", "nbd_test")) {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		cases := declared.FindAllSubmatchIndex(source, -1)
		if len(cases) == 0 {
			t.Errorf("%s has no case that cleans up", filepath.Base(name))
		}
		for _, c := range cases {
			of := string(source[c[2]:c[3]])
			defined := regexp.MustCompile(`(?m)^`+of+`_cleanup\(\)`).FindAllIndex(source, -1)
			if len(defined) != 1 || defined[0][0] < c[0] {
				t.Errorf("%s: the cleanup of %s is not defined once, behind its atf_test_case", filepath.Base(name), of)
			}
		}
	}
}
