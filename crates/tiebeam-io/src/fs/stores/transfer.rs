//! Objects as streams: read in ranges that grow, written in parts.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt};

use super::super::WriteFile;
use super::Store;
use super::store::as_io;
use super::wait;

/// The bytes of the first request; each next one asks for twice as many.
const FIRST: u64 = 512 << 10;
/// The most bytes of a request.
const MOST: u64 = 8 << 20;
/// The bytes of a part. A store takes 10,000 parts, so a file has at most 80 GB.
const PART: usize = 8 << 20;

/// An object being read: the one that it was when it was opened.
pub(super) struct Reading {
    inner: Arc<dyn ObjectStore>,
    secrets: Arc<[String]>,
    key: Path,
    /// The mark of this version; a store without one is believed.
    etag: Option<String>,
    size: u64,
    at: u64,
    next: u64,
    chunk: Bytes,
}

impl Reading {
    pub(super) fn open(store: &Store, key: Path, start: u64) -> io::Result<Reading> {
        let Some(meta) = store.head(&key)? else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such object"));
        };
        // A weak mark does not say that the bytes are the same ones.
        let etag = meta.e_tag.filter(|etag| !etag.starts_with("W/"));
        Ok(Reading {
            inner: store.inner.clone(),
            secrets: store.secrets.clone(),
            key,
            etag,
            size: meta.size,
            at: start,
            next: FIRST,
            chunk: Bytes::new(),
        })
    }

    fn fill(&mut self) -> io::Result<()> {
        let range = self.at..(self.at + self.next).min(self.size);
        let (inner, key, etag) = (self.inner.clone(), self.key.clone(), self.etag.clone());
        let wanted = range.clone();
        let got = wait(async move {
            let options = GetOptions {
                if_match: etag,
                range: Some(GetRange::Bounded(wanted)),
                ..GetOptions::default()
            };
            inner.get_opts(&key, options).await?.bytes().await
        })?;
        let chunk = match got {
            Ok(chunk) => chunk,
            Err(object_store::Error::Precondition { .. }) => return Err(changed()),
            Err(object_store::Error::NotSupported { .. }) => self.whole(range.start)?,
            Err(e) => return Err(as_io(&e, &self.secrets)),
        };
        if (chunk.len() as u64) < range.end - range.start {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the store gave fewer bytes than it has",
            ));
        }
        self.at += chunk.len() as u64;
        self.next = (self.next * 2).min(MOST);
        self.chunk = chunk;
        Ok(())
    }

    /// From a server without ranges: the file as a whole, once.
    fn whole(&self, from: u64) -> io::Result<Bytes> {
        let (inner, key) = (self.inner.clone(), self.key.clone());
        let all = wait(async move { inner.get(&key).await?.bytes().await })?;
        let all = all.map_err(|e| as_io(&e, &self.secrets))?;
        if all.len() as u64 != self.size {
            return Err(changed());
        }
        Ok(all.slice(from as usize..))
    }
}

fn changed() -> io::Error {
    io::Error::other("the object was replaced while it was read")
}

impl Read for Reading {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && self.at < self.size && !out.is_empty() {
            self.fill()?;
        }
        let n = out.len().min(self.chunk.len());
        out[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

/// An object being written. Nobody sees it before its end; dropped before that, its parts are given back.
pub(super) struct Writing {
    inner: Arc<dyn ObjectStore>,
    secrets: Arc<[String]>,
    key: Path,
    buffer: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Writing {
    pub(super) fn new(store: &Store, key: Path) -> Writing {
        let (inner, secrets) = (store.inner.clone(), store.secrets.clone());
        Writing { inner, secrets, key, buffer: Vec::new(), upload: None }
    }

    fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        wait(work)?.map_err(|e| as_io(&e, &self.secrets))
    }

    fn send_part(&mut self) -> io::Result<()> {
        if self.upload.is_none() {
            let (inner, key) = (self.inner.clone(), self.key.clone());
            self.upload = Some(self.ask(async move { inner.put_multipart(&key).await })?);
        }
        let part = Bytes::from(std::mem::take(&mut self.buffer));
        match self.upload.as_mut().map(|upload| upload.put_part(part.into())) {
            Some(sent) => self.ask(sent),
            None => Ok(()),
        }
    }
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == PART {
            self.send_part()?;
        }
        Ok(n)
    }

    /// Parts are whole; what is gathered waits for the next one.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for Writing {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if self.upload.is_none() {
            let (inner, key) = (self.inner.clone(), self.key.clone());
            let body = Bytes::from(std::mem::take(&mut self.buffer));
            return self.ask(async move { inner.put(&key, body.into()).await }).map(drop);
        }
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        self.ask(async move {
            let completed = upload.complete().await;
            if completed.is_err() {
                // Its parts would be kept; whether they go is not what is to be told.
                let _ = upload.abort().await;
            }
            completed.map(drop)
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            // A store keeps the parts of an upload that was not given up until its own rules remove them.
            let _ = self.ask(async move { upload.abort().await });
        }
    }
}
