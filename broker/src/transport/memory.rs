//! Both ends of a connection in one process, for tests: what one end wrote arrives at the other when somebody says so.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct Pipes {
    /// Written by the client, and still on its way.
    under_way: VecDeque<u8>,
    /// Arrived at the broker.
    arrived: VecDeque<u8>,
    /// Written by the broker, and not yet read.
    answers: VecDeque<u8>,
    /// So many answers fit before the broker must wait.
    capacity: usize,
    client_gone: bool,
    broker_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The broker's end. Dropped, it is closed.
#[derive(Debug)]
pub struct BrokerEnd(Arc<Mutex<Pipes>>);

/// The client's end. Dropped, it is closed, and what is under way is lost.
#[derive(Debug)]
pub struct ClientEnd(Arc<Mutex<Pipes>>);

/// A connection on which `capacity` bytes from the broker can be under way.
pub fn connection(capacity: usize) -> (BrokerEnd, ClientEnd) {
    let pipes = Arc::new(Mutex::new(Pipes { capacity, ..Pipes::default() }));
    (BrokerEnd(Arc::clone(&pipes)), ClientEnd(pipes))
}

impl BrokerEnd {
    /// Reads what has arrived.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipes = self.0.lock();
        let count = buffer.len().min(pipes.arrived.len());
        if count == 0 && !pipes.client_gone {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer.iter_mut().zip(pipes.arrived.drain(..count)).for_each(|(to, from)| *to = from);
        Ok(count)
    }

    /// Writes as much as fits.
    pub fn try_write(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut pipes = self.0.lock();
        if pipes.client_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = pipes.capacity.saturating_sub(pipes.answers.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = pipes.answers.len();
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).take(room);
        pipes.answers.extend(bytes);
        Ok(pipes.answers.len() - before)
    }

    /// Ready when something has arrived, or nothing will.
    pub fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut pipes = self.0.lock();
        if !pipes.arrived.is_empty() || pipes.client_gone {
            return Poll::Ready(Ok(()));
        }
        pipes.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when something fits.
    pub fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut pipes = self.0.lock();
        if pipes.answers.len() < pipes.capacity || pipes.client_gone {
            return Poll::Ready(Ok(()));
        }
        pipes.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for BrokerEnd {
    fn drop(&mut self) {
        self.0.lock().broker_gone = true;
    }
}

impl ClientEnd {
    /// Sends bytes; they are under way.
    pub fn send(&self, bytes: &[u8]) {
        self.0.lock().under_way.extend(bytes);
    }

    /// Bytes under way to the broker.
    pub fn under_way(&self) -> usize {
        self.0.lock().under_way.len()
    }

    /// So many of them arrive.
    pub fn arrive(&self, count: usize) {
        let mut pipes = self.0.lock();
        let count = count.min(pipes.under_way.len());
        let arriving: Vec<u8> = pipes.under_way.drain(..count).collect();
        pipes.arrived.extend(arriving);
        pipes.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Bytes that can be read.
    pub fn readable(&self) -> usize {
        self.0.lock().answers.len()
    }

    /// Reads so many bytes of the broker's.
    pub fn read(&self, count: usize) -> Vec<u8> {
        let mut pipes = self.0.lock();
        let count = count.min(pipes.answers.len());
        let read = pipes.answers.drain(..count).collect();
        pipes.writer.take().into_iter().for_each(Waker::wake);
        read
    }

    /// The broker has closed the connection, and all that it said has been read.
    pub fn is_over(&self) -> bool {
        let pipes = self.0.lock();
        pipes.broker_gone && pipes.answers.is_empty()
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        let mut pipes = self.0.lock();
        pipes.client_gone = true;
        pipes.under_way.clear();
        let woken = [pipes.reader.take(), pipes.writer.take()];
        drop(pipes);
        woken.into_iter().flatten().for_each(Waker::wake);
    }
}
