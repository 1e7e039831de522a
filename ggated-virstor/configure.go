package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/pflag"

	"github.com/gvirstor/gvirstor/geomlib/virstor"
	"github.com/gvirstor/gvirstor/ggated-virstor/config"
)

// defaultConfig is read when it exists and no other file is named. The build
// sets it to where the program is installed.
var defaultConfig = "/usr/local/etc/ggated-virstor.conf"

// notKeys are the options that a file cannot set.
var notKeys = []string{"config", "check-config", "force-old", "version", "help"}

// configFile is the path of the configuration, which need not be there when none was
// named.
func (o *options) configFile() string {
	if o.config == "" {
		return defaultConfig
	}
	return o.config
}

// configure sets what the configuration file says and the command line, which
// flags have been parsed from, does not.
func (o *options) configure(flags *pflag.FlagSet) error {
	file, err := o.world.load(o.configFile())
	if errors.Is(err, fs.ErrNotExist) && o.config == "" {
		file, err = &config.File{}, nil
	}
	if err != nil {
		return err
	}
	typed := make(map[string]bool)
	flags.Visit(func(f *pflag.Flag) { typed[f.Name] = true })
	check := func() error {
		_, policies := o.policies()
		_, addresses := o.addresses()
		_, grants := o.grants()
		return errors.Join(policies, addresses, grants)
	}
	if err := file.Apply("", keySet(flags), typed, check); err != nil {
		return err
	}
	o.settings = make(map[string]string)
	keySet(flags).VisitAll(func(f *pflag.Flag) { o.settings[f.Name] = f.Value.String() })
	o.perVolume = make(map[string]virstor.Config)
	for _, volume := range file.Volumes() {
		c, err := o.volumeConfig(file, volume, flags, typed)
		if err != nil {
			return err
		}
		o.perVolume[volume] = c
	}
	return nil
}

// volumeConfig is what the section of a volume makes of the policies in flags.
func (o *options) volumeConfig(file *config.File, volume string, flags *pflag.FlagSet, typed map[string]bool) (virstor.Config, error) {
	own := *o
	set := pflag.NewFlagSet(volume, pflag.ContinueOnError)
	policyFlags(set, &own)
	var err error
	set.VisitAll(func(f *pflag.Flag) { err = errors.Join(err, f.Value.Set(flags.Lookup(f.Name).Value.String())) })
	if err != nil {
		return virstor.Config{}, fmt.Errorf("policies of %s: %w", volume, err)
	}
	check := func() error { _, err := own.policies(); return err }
	if err := file.Apply(volume, set, typed, check); err != nil {
		return virstor.Config{}, err
	}
	set.VisitAll(func(f *pflag.Flag) {
		if value := f.Value.String(); value != flags.Lookup(f.Name).Value.String() {
			o.settings["[volume "+volume+"] "+f.Name] = value
		}
	})
	return own.policies()
}

// keySet is flags without those that are no keys.
func keySet(flags *pflag.FlagSet) *pflag.FlagSet {
	keys := pflag.NewFlagSet("", pflag.ContinueOnError)
	keys.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(notKeys, f.Name) {
			keys.AddFlag(f)
		}
	})
	return keys
}
