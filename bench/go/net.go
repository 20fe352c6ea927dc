package main

// Servers, and the load for all of them: `bench serve KIND` and `bench load KIND PORT SIZE N SECONDS`.

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	connections = 64
	keepAlive   = "GET /bench HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
	once        = "GET /bench HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
)

// --- servers ---

func serve(kind string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if kind != "echo" {
		check(http.Serve(listener, http.HandlerFunc(hello)))
	}
	for {
		conn, err := listener.Accept()
		check(err)
		go echo(conn)
	}
}

func hello(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello from %s\n", r.URL.Path) }

func echo(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 65536)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// --- load ---

// One exchange over a connection that stays.
type exchange func(conn net.Conn) error

func dial(port string) net.Conn {
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	check(err)
	return conn
}

func echoes(size int) func() exchange {
	return func() exchange {
		sent, got := bytes.Repeat([]byte("gofer!"), size/6+1)[:size], make([]byte, size)
		return func(conn net.Conn) error {
			failed := make(chan error, 1)
			if size > 65536 { // more than the buffers hold: both ways at once
				go func() { _, err := conn.Write(sent); failed <- err }()
			} else {
				_, err := conn.Write(sent)
				failed <- err
			}
			if _, err := io.ReadFull(conn, got); err != nil {
				return err
			}
			if !bytes.Equal(sent, got) {
				return fmt.Errorf("the echo is not what was sent")
			}
			return <-failed
		}
	}
}

// The first answer is parsed; those that follow have its length.
func requests() exchange {
	var got []byte
	return func(conn net.Conn) error {
		if _, err := io.WriteString(conn, keepAlive); err != nil {
			return err
		}
		if got == nil {
			length, err := parsed(conn)
			got = make([]byte, length)
			return err
		}
		_, err := io.ReadFull(conn, got)
		return err
	}
}

func parsed(conn net.Conn) (int, error) {
	var raw bytes.Buffer
	response, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &raw)), nil)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != 200 {
		return 0, fmt.Errorf("status %s", response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return raw.Len(), err
}

// All connections do exchanges for so long; prints how many there were, and nanoseconds for one.
func exchanges(port string, make func() exchange, seconds float64) {
	var counted atomic.Int64
	var counting, stopped atomic.Bool
	var wg sync.WaitGroup
	for range connections {
		conn, do := dial(port), make()
		wg.Go(func() {
			defer conn.Close()
			for !stopped.Load() {
				check(do(conn))
				if counting.Load() {
					counted.Add(1)
				}
			}
		})
	}
	time.Sleep(time.Duration(seconds * 0.25e9)) // warms up
	measure(&counting, &counted, seconds)
	stopped.Store(true)
	wg.Wait()
}

func measure(counting *atomic.Bool, counted *atomic.Int64, seconds float64) {
	start := time.Now()
	counting.Store(true)
	time.Sleep(time.Duration(seconds * 1e9))
	n := counted.Load()
	tell(n, float64(time.Since(start).Nanoseconds())/float64(n))
}

func tell(n int64, value float64) {
	fmt.Printf("{\"n\": %d, \"value\": %f, \"uses\": \"\"}\n", n, value)
}

func newConnections(port string, seconds float64) {
	var counted atomic.Int64
	var counting, stopped atomic.Bool
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for !stopped.Load() {
				conn := dial(port)
				_, err := io.WriteString(conn, once)
				check(err)
				got, err := io.ReadAll(conn)
				check(err)
				conn.Close()
				if !bytes.HasPrefix(got, []byte("HTTP/1.1 200")) {
					check(fmt.Errorf("it answered %q", got))
				}
				if counting.Load() {
					counted.Add(1)
				}
			}
		})
	}
	time.Sleep(time.Duration(seconds * 0.25e9))
	measure(&counting, &counted, seconds)
	stopped.Store(true)
	wg.Wait()
}

// n connections that wait; says so, and when it is told to, makes all of them speak at once.
func wakeAll(port string, n int) {
	conns := make([]net.Conn, n)
	speak := func(i int) {
		_, err := conns[i].Write([]byte{1})
		check(err)
	}
	hear := func(i int) {
		_, err := conns[i].Read(make([]byte, 1))
		check(err)
	}
	for i := range conns {
		conns[i] = dial(port)
		speak(i)
		hear(i)
	}
	fmt.Println("idle")
	fmt.Scanln()
	start := time.Now()
	for i := range conns {
		speak(i)
	}
	for i := range conns {
		hear(i)
	}
	tell(int64(n), float64(time.Since(start).Nanoseconds())/float64(n))
}

func load(kind, port string, size, n int, seconds float64) {
	switch kind {
	case "echo":
		exchanges(port, echoes(size), seconds)
	case "http":
		exchanges(port, requests, seconds)
	case "new":
		newConnections(port, seconds)
	case "idle":
		wakeAll(port, n)
	}
}
