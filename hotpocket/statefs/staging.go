package statefs

import (
	"context"
	"errors"
)

type Staging interface{ Close() error }
type staging struct{}

func (d *Dir) Stage(ctx context.Context) (Staging, error) { return nil, errors.New("not yet") }
func (d *Dir) Object(ctx context.Context, ref Ref) ([]byte, error) { return nil, errors.New("not yet") }
var _ State = (*Dir)(nil)
