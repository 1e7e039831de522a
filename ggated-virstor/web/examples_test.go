package web

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

var metricName = regexp.MustCompile(`\bgvirstor_[a-z0-9_]+`)

// checkExpr makes sure that an expression names metrics that exist, with
// labels that they have, and that its brackets close.
func checkExpr(t *testing.T, where, expr string, fs map[string]*dto.MetricFamily) {
	t.Helper()
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		t.Errorf("%s: %q names no metric", where, expr)
	}
	for _, name := range names {
		family := fs[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && fs[base].GetType() == dto.MetricType_HISTOGRAM {
				family = fs[base]
			}
		}
		if family == nil {
			t.Errorf("%s: there is no metric %s", where, name)
			continue
		}
		if counter := family.GetType() == dto.MetricType_COUNTER; counter != strings.HasSuffix(family.GetName(), "_total") {
			t.Errorf("%s: %s is a %s", where, name, family.GetType())
		}
	}
	var open []rune
	for _, r := range expr {
		switch r {
		case '(', '[', '{':
			open = append(open, r)
		case ')', ']', '}':
			want := map[rune]rune{')': '(', ']': '[', '}': '{'}[r]
			if len(open) == 0 || open[len(open)-1] != want {
				t.Errorf("%s: brackets of %q", where, expr)
				return
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("%s: brackets of %q", where, expr)
	}
}

// labelsOf are the labels that a metric has in fs.
func labelsOf(name string, fs map[string]*dto.MetricFamily) []string {
	var ls []string
	for _, m := range fs[name].GetMetric() {
		for _, l := range m.Label {
			ls = append(ls, l.GetName())
		}
	}
	return ls
}

func exported(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	v := someVolume("a", 1)
	v.Status.Components[0].Remote = true
	return scrape(t, start(t, source{v}, health{}))
}

func example(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rule is one alert rule.
type rule struct {
	alert, expr, wait   string
	labels, annotations map[string]string
}

// parseRules reads the part of YAML that rule files are written in here: maps and
// lists by indent, two spaces a level, a scalar a line. All else is an error.
func parseRules(text string) (groups []string, rules []rule, err error) {
	line := regexp.MustCompile(`^( *)(- )?([a-z_]+):(?: (.+))?$`)
	var inner map[string]string
	for i, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if strings.HasPrefix(l, "#") {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			return nil, nil, fmt.Errorf("line %d: %q", i+1, l)
		}
		depth, item, key, value := len(m[1]), m[2] != "", m[3], m[4]
		if strings.HasPrefix(value, `"`) {
			if err := json.Unmarshal([]byte(value), &value); err != nil {
				return nil, nil, fmt.Errorf("line %d: %w", i+1, err)
			}
		} else if strings.Contains(value, ": ") || strings.Contains(value, " #") || strings.ContainsAny(value[:min(1, len(value))], "{[&*!|>'%@`") {
			return nil, nil, fmt.Errorf("line %d: %q needs quotes", i+1, value)
		}
		var last *rule
		if len(rules) > 0 {
			last = &rules[len(rules)-1]
		}
		switch {
		case depth == 0 && key == "groups" && value == "" && i < 10:
		case depth == 2 && item && key == "name" && value != "":
			groups = append(groups, value)
		case depth == 4 && !item && key == "rules" && value == "" && len(groups) > 0:
		case depth == 6 && item && key == "alert" && value != "":
			rules = append(rules, rule{alert: value})
		case last == nil:
			return nil, nil, fmt.Errorf("line %d: %q before a rule", i+1, l)
		case depth == 8 && !item && key == "expr" && last.expr == "":
			last.expr = value
		case depth == 8 && !item && key == "for" && last.wait == "":
			last.wait = value
		case depth == 8 && !item && (key == "labels" || key == "annotations") && value == "":
			inner = make(map[string]string)
			if key == "labels" {
				last.labels = inner
			} else {
				last.annotations = inner
			}
		case depth == 10 && !item && inner != nil && value != "":
			inner[key] = value
		default:
			return nil, nil, fmt.Errorf("line %d: %q has no place there", i+1, l)
		}
	}
	return groups, rules, nil
}

func TestTheAlertRulesNameMetricsThatExist(t *testing.T) {
	groups, rules, err := parseRules(example(t, "alerts.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(groups, []string{"gvirstor"}) || len(rules) < 8 {
		t.Fatalf("groups %q, %d rules", groups, len(rules))
	}
	fs := exported(t)
	seen := make(map[string]bool)
	variable := regexp.MustCompile(`\{\{ *\$labels\.([a-z_]+) *\}\}`)
	for _, r := range rules {
		if seen[r.alert] {
			t.Errorf("%s is there twice", r.alert)
		}
		seen[r.alert] = true
		checkExpr(t, r.alert, r.expr, fs)
		if r.wait != "" {
			if _, err := time.ParseDuration(r.wait); err != nil {
				t.Errorf("%s: for %s", r.alert, r.wait)
			}
		}
		if s := r.labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s: severity %q", r.alert, s)
		}
		if r.annotations["summary"] == "" || r.annotations["description"] == "" {
			t.Errorf("%s: no summary or description", r.alert)
		}
		for _, text := range r.annotations {
			for _, m := range variable.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(labelsOf(metricName.FindString(r.expr), fs), m[1]) {
					t.Errorf("%s: the metric has no label %s", r.alert, m[1])
				}
			}
		}
	}
}

func TestTheDashboardNamesMetricsThatExist(t *testing.T) {
	var d struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr, LegendFormat, RefID string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(example(t, "grafana-dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || len(d.Panels) < 10 {
		t.Fatalf("title %q, uid %q, %d panels", d.Title, d.UID, len(d.Panels))
	}
	fs := exported(t)
	ids := make(map[int]bool)
	legend := regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	used := make(map[string]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || len(p.Targets) == 0 {
			t.Errorf("panel %d %q at %+v with %d targets", p.ID, p.Title, p.GridPos, len(p.Targets))
		}
		ids[p.ID] = true
		for _, q := range p.Targets {
			checkExpr(t, p.Title, q.Expr, fs)
			for _, n := range metricName.FindAllString(q.Expr, -1) {
				used[n] = true
			}
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(metricName.FindString(q.Expr), "")
			for _, m := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
				if !slices.Contains(labelsOf(base, fs), m[1]) {
					t.Errorf("%s: %s has no label %s", p.Title, base, m[1])
				}
			}
		}
	}
	if len(used) < 15 {
		t.Errorf("%d metrics are shown", len(used))
	}
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			checkExpr(t, v.Name, v.Definition, fs)
		}
	}
}

func TestTheManualNamesMetricsThatExist(t *testing.T) {
	fs := exported(t)
	page, err := os.ReadFile(filepath.Join("..", "..", "man", "ggated-virstor.8"))
	if err != nil {
		t.Fatal(err)
	}
	names := metricName.FindAllString(string(page), -1)
	if len(names) < 20 {
		t.Errorf("the manual names %d metrics", len(names))
	}
	for _, name := range names {
		if fs[name] == nil {
			t.Errorf("there is no metric %s", name)
		}
	}
}

func TestTheRuleReaderRefusesWhatIsNotInItsPlace(t *testing.T) {
	for _, bad := range []string{
		"groups:\n  - name: a\n    rules:\n        expr: 1\n",
		"groups:\n  - name: a\n    rules:\n      - alert: b\n       expr: 1\n",
		"groups:\n\t- name: a\n",
		"groups:\n  - name: a\n    rules:\n      - alert: b\n        expr: x: y\n",
		"groups:\n  - name: a\n    rules:\n      - alert: b\n        labels:\n          severity: {{ a }}\n",
	} {
		if g, r, err := parseRules(bad); err == nil {
			t.Errorf("%q is read as %q %+v", bad, g, r)
		}
	}
}
