// kstatus says what GitOps tools make of objects: one JSON object per line in, one judgement per line out.
//
//	kstatus -health health.lua -checks checks.json <objects.jsonl
//
// "kstatus" is what Flux, kubectl-based tools and Helm see (fluxcd's kstatus, which Flux and Helm link), "flux" the
// same where a Kustomization's healthCheckExprs are for the object's kind, and "argo" what Argo CD makes of
// its health script.
//
//	kstatus -strict <objects.jsonl
//
// decodes Flux's own kinds as its controllers do, and fails for a field that they don't know.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	helm "github.com/fluxcd/helm-controller/api/v2"
	kustomization "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	source "github.com/fluxcd/source-controller/api/v1"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type judgement struct {
	Kstatus status.Status `json:"kstatus"`
	Message string        `json:"message"`
	Flux    status.Status `json:"flux"`
	Argo    *health       `json:"argo,omitempty"`
}

func main() {
	script := flag.String("health", "", "an Argo CD health script")
	checks := flag.String("checks", "", "a JSON list: spec.healthCheckExprs of a Flux Kustomization")
	strict := flag.Bool("strict", false, "decode Flux's kinds strictly, and print nothing")
	flag.Parse()
	var err error
	if *strict {
		err = decodeAll(os.Stdin)
	} else {
		err = judgeAll(os.Stdin, os.Stdout, *script, *checks)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judgeAll(in io.Reader, out io.Writer, scriptFile, checksFile string) error {
	var script []byte
	var err error
	if scriptFile != "" {
		if script, err = os.ReadFile(scriptFile); err != nil {
			return err
		}
	}
	evaluators, err := evaluatorsOf(checksFile)
	if err != nil {
		return err
	}
	written := json.NewEncoder(out)
	return lines(in, func(line []byte) error {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(line); err != nil {
			return err
		}
		result, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		judged := judgement{Kstatus: result.Status, Message: result.Message, Flux: result.Status}
		if evaluator := evaluators[object.GetKind()]; evaluator != nil {
			custom, err := evaluator.Evaluate(context.Background(), object)
			if err != nil {
				return fmt.Errorf("%s: %w", object.GetName(), err)
			}
			judged.Flux = custom.Status
		}
		if script != nil {
			if judged.Argo, err = run(string(script), object.Object); err != nil {
				return fmt.Errorf("%s: %w", object.GetName(), err)
			}
		}
		return written.Encode(judged)
	})
}

func evaluatorsOf(file string) (map[string]*cel.StatusEvaluator, error) {
	evaluators := map[string]*cel.StatusEvaluator{}
	if file == "" {
		return evaluators, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var checks []kustomize.CustomHealthCheck
	if err := strictly(text, &checks); err != nil {
		return nil, err
	}
	for _, check := range checks {
		if evaluators[check.Kind], err = cel.NewStatusEvaluator(&check.HealthCheckExpressions); err != nil {
			return nil, fmt.Errorf("%s: %w", check.Kind, err)
		}
	}
	return evaluators, nil
}

// run does what Argo CD's util/lua does: the same interpreter, the same few libraries (no string, no math, no io),
// a second of time, the object as the global `obj`. Importing it instead would link all of Argo CD.
func run(script string, object map[string]any) (*health, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		called := lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}
		if err := state.CallByParam(called, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	ending, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ending)
	state.SetGlobal("obj", decoded(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, errors.New("the health script returned no table")
	}
	said, ok := table.RawGetString("status").(lua.LString)
	if !ok {
		return nil, errors.New("the health script returned no status")
	}
	message, ok := table.RawGetString("message").(lua.LString)
	if !ok {
		return nil, errors.New("the health script returned no message")
	}
	return &health{Status: string(said), Message: string(message)}, nil
}

func decoded(state *lua.LState, value any) lua.LValue {
	switch given := value.(type) {
	case bool:
		return lua.LBool(given)
	case float64:
		return lua.LNumber(given)
	case int64:
		return lua.LNumber(given)
	case string:
		return lua.LString(given)
	case []any:
		table := state.CreateTable(len(given), 0)
		for _, item := range given {
			table.Append(decoded(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(given))
		for key, item := range given {
			table.RawSetString(key, decoded(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}

func decodeAll(in io.Reader) error {
	return lines(in, func(line []byte) error {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(line); err != nil {
			return err
		}
		into := map[string]func() any{
			kustomization.GroupVersion.String() + " Kustomization": func() any { return &kustomization.Kustomization{} },
			helm.GroupVersion.String() + " HelmRelease":            func() any { return &helm.HelmRelease{} },
			source.GroupVersion.String() + " GitRepository":        func() any { return &source.GitRepository{} },
			source.GroupVersion.String() + " OCIRepository":        func() any { return &source.OCIRepository{} },
			source.GroupVersion.String() + " HelmRepository":       func() any { return &source.HelmRepository{} },
		}[object.GetAPIVersion()+" "+object.GetKind()]
		if into == nil {
			return fmt.Errorf("%s %s is no kind of Flux that is known here", object.GetAPIVersion(), object.GetKind())
		}
		if err := strictly(line, into()); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		return nil
	})
}

func strictly(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func lines(in io.Reader, each func([]byte) error) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		if err := each(scanner.Bytes()); err != nil {
			return err
		}
	}
	return scanner.Err()
}
