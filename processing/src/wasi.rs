//! WASI preview 2 with nothing granted.
//!
//! Guests are called synchronously, often on a thread of an async runtime. The few WASI functions that may
//! wait (a sleep, a poll) step out of the runtime's way and never wait longer than a call may take.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::io::{poll as waiting, streams as flowing};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::bindings::sync::sockets::udp_create_socket;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, SocketResult, StreamError, StreamResult,
};
use wasmtime_wasi::p2::{IoError, Network, SocketError, TcpSocket, UdpSocket};
use wasmtime_wasi::{WasiView, runtime};

use crate::host::State;

/// Links WASI for components.
pub fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    poll::add_to_linker::<State, Io>(linker, io)?;
    streams::add_to_linker::<State, Io>(linker, io)?;
    tcp_create_socket::add_to_linker::<State, Sockets>(linker, |_| Sockets)?;
    udp_create_socket::add_to_linker::<State, Sockets>(linker, |_| Sockets)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn io(state: &mut State) -> Waiting<'_> {
    let longest = state.longest_wait();
    Waiting { table: state.ctx().table, longest }
}

/// The guest waited until its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the guest waited longer than a call may take")]
pub struct Overslept;

/// No socket is ever made. What wasmtime's own would do with one blocks, which panics on a thread of an async
/// runtime: a guest that binds a socket would end the thread that called it.
pub struct Sockets;

impl HasData for Sockets {
    type Data<'a> = Self;
}

impl network::Host for Sockets {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
    fn network_error_code(&mut self, _: Resource<IoError>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for Sockets {
    fn drop(&mut self, _: Resource<Network>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl tcp_create_socket::Host for Sockets {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        Err(ErrorCode::AccessDenied.into())
    }
}

impl udp_create_socket::Host for Sockets {
    fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        Err(ErrorCode::AccessDenied.into())
    }
}

struct Io;

impl HasData for Io {
    type Data<'a> = Waiting<'a>;
}

/// The table of WASI resources, and how long a guest may wait for one of them.
pub struct Waiting<'a> {
    table: &'a mut ResourceTable,
    longest: Duration,
}

/// Runs `future` to its end, or for `longest`, without holding up the runtime that we may be called from.
fn wait<F: Future>(longest: Duration, future: F) -> wasmtime::Result<F::Output> {
    let bounded = async move {
        tokio::time::timeout(longest, future).await.map_err(|_| wasmtime::Error::new(Overslept))
    };
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(bounded))
        }
        _ => runtime::in_tokio(bounded),
    }
}

impl Waiting<'_> {
    fn stream<T>(
        &mut self,
        what: impl AsyncFnOnce(&mut ResourceTable) -> StreamResult<T>,
    ) -> StreamResult<T> {
        wait(self.longest, what(self.table)).map_err(StreamError::Trap)?
    }
}

impl poll::Host for Waiting<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        wait(self.longest, waiting::Host::poll(self.table, pollables))?
    }
}

impl poll::HostPollable for Waiting<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        wait(self.longest, waiting::HostPollable::ready(self.table, pollable))?
    }
    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        wait(self.longest, waiting::HostPollable::block(self.table, pollable))?
    }
    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        waiting::HostPollable::drop(self.table, pollable)
    }
}

impl streams::Host for Waiting<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.table, error)
    }
}

type Input = Resource<DynInputStream>;
type Output = Resource<DynOutputStream>;

impl streams::HostOutputStream for Waiting<'_> {
    fn drop(&mut self, stream: Output) -> wasmtime::Result<()> {
        wait(self.longest, flowing::HostOutputStream::drop(self.table, stream))?
    }
    fn check_write(&mut self, stream: Output) -> StreamResult<u64> {
        streams::HostOutputStream::check_write(self.table, stream)
    }
    fn write(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self.table, stream, bytes)
    }
    fn blocking_write_and_flush(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        self.stream(async |table| {
            flowing::HostOutputStream::blocking_write_and_flush(table, stream, bytes).await
        })
    }
    fn blocking_write_zeroes_and_flush(&mut self, stream: Output, len: u64) -> StreamResult<()> {
        self.stream(async |table| {
            flowing::HostOutputStream::blocking_write_zeroes_and_flush(table, stream, len).await
        })
    }
    fn subscribe(&mut self, stream: Output) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(self.table, stream)
    }
    fn write_zeroes(&mut self, stream: Output, len: u64) -> StreamResult<()> {
        streams::HostOutputStream::write_zeroes(self.table, stream, len)
    }
    fn flush(&mut self, stream: Output) -> StreamResult<()> {
        streams::HostOutputStream::flush(self.table, stream)
    }
    fn blocking_flush(&mut self, stream: Output) -> StreamResult<()> {
        self.stream(async |table| flowing::HostOutputStream::blocking_flush(table, stream).await)
    }
    fn splice(&mut self, to: Output, from: Input, len: u64) -> StreamResult<u64> {
        streams::HostOutputStream::splice(self.table, to, from, len)
    }
    fn blocking_splice(&mut self, to: Output, from: Input, len: u64) -> StreamResult<u64> {
        self.stream(async |table| flowing::HostOutputStream::blocking_splice(table, to, from, len).await)
    }
}

impl streams::HostInputStream for Waiting<'_> {
    fn drop(&mut self, stream: Input) -> wasmtime::Result<()> {
        wait(self.longest, flowing::HostInputStream::drop(self.table, stream))?
    }
    fn read(&mut self, stream: Input, len: u64) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::read(self.table, stream, len)
    }
    fn blocking_read(&mut self, stream: Input, len: u64) -> StreamResult<Vec<u8>> {
        self.stream(async |table| flowing::HostInputStream::blocking_read(table, stream, len).await)
    }
    fn skip(&mut self, stream: Input, len: u64) -> StreamResult<u64> {
        streams::HostInputStream::skip(self.table, stream, len)
    }
    fn blocking_skip(&mut self, stream: Input, len: u64) -> StreamResult<u64> {
        self.stream(async |table| flowing::HostInputStream::blocking_skip(table, stream, len).await)
    }
    fn subscribe(&mut self, stream: Input) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(self.table, stream)
    }
}
