package stages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// What an answer of a program may be at most, so that garbage is not taken for a
// length: a batch of 10,000 pictures of 224x224 is below it.
const (
	maxMessage = 16 << 20
	maxBody    = 1<<31 - 1
)

// endOfStream is the last message of a stream.
var endOfStream = []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// A messageReader reads the messages of an Arrow IPC stream. Arrow's own takes
// whatever comes for a length, and allocates that much.
type messageReader struct {
	r    io.Reader
	mem  memory.Allocator // of bodies
	meta []byte           // of the last message
	body *memory.Buffer
	msg  *ipc.Message
}

// Message gives the next message, valid until the next call. The error is io.EOF at
// the end of the stream, and io.ErrUnexpectedEOF in the middle of a message.
func (m *messageReader) Message() (*ipc.Message, error) {
	m.Release()
	var head [8]byte
	if n, err := io.ReadFull(m.r, head[:]); err != nil {
		if err == io.ErrUnexpectedEOF && !bytes.HasPrefix(endOfStream, head[:min(n, 4)]) {
			return nil, noStream(head[:n])
		}
		return nil, err
	}
	length := int(binary.LittleEndian.Uint32(head[4:]))
	switch {
	case bytes.Equal(head[:], endOfStream):
		return nil, io.EOF
	case !bytes.Equal(head[:4], endOfStream[:4]):
		return nil, noStream(head[:])
	case length > maxMessage:
		return nil, fmt.Errorf("a message of the Arrow IPC stream would have metadata of %d bytes, more than the %d that are allowed", length, maxMessage)
	}
	meta := make([]byte, length)
	if _, err := io.ReadFull(m.r, meta); err != nil {
		return nil, inside(err)
	}
	header := ipc.NewMessage(memory.NewBufferBytes(meta), memory.NewBufferBytes(nil))
	defer header.Release()
	if header.Type() == ipc.MessageSchema {
		if err := checkSchema(meta); err != nil {
			return nil, err
		}
	}
	size := header.BodyLen()
	if size < 0 || size > maxBody {
		return nil, fmt.Errorf("a message of the Arrow IPC stream would have a body of %d bytes, more than the %d that are allowed", size, maxBody)
	}
	m.meta, m.body = meta, memory.NewBufferWithAllocator(m.mem.Allocate(int(size)), m.mem)
	if _, err := io.ReadFull(m.r, m.body.Bytes()); err != nil {
		return nil, inside(err)
	}
	m.msg = ipc.NewMessage(memory.NewBufferBytes(meta), m.body)
	return m.msg, nil
}

// Retain does nothing: a messageReader has one owner.
func (m *messageReader) Retain() {}

// Release drops the last message.
func (m *messageReader) Release() {
	if m.msg != nil {
		m.msg.Release()
		m.msg = nil
	}
	if m.body != nil {
		m.body.Release()
		m.meta, m.body = nil, nil
	}
}

func noStream(head []byte) error {
	return fmt.Errorf("%q stands where a message of the Arrow IPC stream must begin; on standard output there may be nothing else, so print to standard error", head)
}

func inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// newWriter writes the schema of a stream at once, which Arrow's own writer does
// only with the first record, and then its records.
func newWriter(w io.Writer, schema *arrow.Schema) (*ipc.Writer, error) {
	var message bytes.Buffer
	empty := ipc.NewWriter(&message, ipc.WithSchema(schema))
	if err := empty.Close(); err != nil {
		return nil, err
	}
	message.Truncate(message.Len() - len(endOfStream))
	rest := &laterWriter{w: w, skip: message.Len()}
	if _, err := w.Write(message.Bytes()); err != nil {
		return nil, err
	}
	return ipc.NewWriter(rest, ipc.WithSchema(schema)), nil
}

// laterWriter leaves out the first bytes, which have been written already.
type laterWriter struct {
	w    io.Writer
	skip int
}

func (l *laterWriter) Write(b []byte) (int, error) {
	n := min(l.skip, len(b))
	l.skip -= n
	if n == len(b) {
		return n, nil
	}
	m, err := l.w.Write(b[n:])
	return n + m, err
}

// A recycler is an allocator that keeps large blocks for the next batch, which is
// as large: new memory costs more than what is copied into it.
type recycler struct {
	keep int // blocks
	mu   sync.Mutex
	free [][]byte
}

// worthKeeping is the least size of a block that is kept.
const worthKeeping = 64 << 10

func (r *recycler) Allocate(size int) []byte {
	if size < 0 || size > maxBody {
		panic(fmt.Errorf("a buffer of %d bytes, more than the %d that are allowed", size, maxBody)) // Arrow's reader makes an error of it
	}
	if size >= worthKeeping {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, b := range r.free {
			if cap(b) >= size && cap(b)/2 <= size {
				last := len(r.free) - 1
				r.free[i], r.free[last] = r.free[last], nil
				r.free = r.free[:last]
				return b[:size]
			}
		}
	}
	return memory.NewGoAllocator().Allocate(size)
}

func (r *recycler) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	larger := r.Allocate(size)
	copy(larger, b)
	r.Free(b)
	return larger
}

func (r *recycler) Free(b []byte) {
	if cap(b) < worthKeeping {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) == r.keep { // the oldest goes: it may be of a size that comes no more
		r.free = append(r.free[:0], r.free[1:]...)
	}
	r.free = append(r.free, b)
}

// ServeExec is the other side of the stage exec, for a program in Go: it answers
// the batches on in (standard input) on out (standard output) until in ends.
// schema says of the columns that come which ones the answers have; answer makes
// one of each batch, with a reference that ServeExec releases (Retain the batch to
// give it back as it is). A batch is lent for the call. See Exec for what an answer must have.
func ServeExec(in io.Reader, out io.Writer, schema func(*arrow.Schema) (*arrow.Schema, error), answer func(arrow.Record) (arrow.Record, error)) error {
	r, err := newReader(in, &recycler{keep: 16})
	if err != nil {
		return err
	}
	columns, err := schema(r.schema)
	if err != nil {
		return err
	}
	w, err := newWriter(out, columns)
	if err != nil {
		return err
	}
	for {
		batch, err := r.Read()
		if errors.Is(err, io.EOF) {
			return w.Close()
		}
		if err != nil {
			return err
		}
		record, err := answer(batch)
		if err == nil {
			err = w.Write(record)
			record.Release()
		}
		batch.Release()
		if err != nil {
			return err
		}
	}
}
