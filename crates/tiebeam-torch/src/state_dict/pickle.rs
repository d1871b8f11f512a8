//! The bounded pickle machine: runs the opcodes that state dicts need and calls nothing.
//!
//! A pickle is a program. This machine knows the handful of globals that `torch.save` writes for a state dict and
//! rebuilds *descriptions* of tensors from them; the name of any other global ends the reading. Values live in an
//! arena, so that shared and cyclic ones cost nothing more, and every opcode makes at most one of them: memory and time
//! stay in proportion to the pickle.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use tiebeam_core::error::{Error, ErrorKind, Result, SourcePlace};

use super::globals::{self, Global};
use super::tensor::ScalarType;

/// The most values that one pickle may make: a state dict needs some twenty a tensor.
const MAX_NODES: usize = 4_000_000;

/// A value of the pickle: small ones in place, the others by their place in the arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Global(Global),
    Node(usize),
}

/// A storage that the pickle speaks of by a persistent id; its bytes are elsewhere in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct StorageRef {
    /// The element type; none for untyped storages, whose length is told in bytes.
    pub dtype: Option<ScalarType>,
    /// The arena's string that names it.
    pub key: usize,
    /// Its number of elements, or of bytes when untyped.
    pub numel: u64,
    /// Where this view begins in the storage of that key, in elements (pre-1.6 files only).
    pub view_offset: u64,
}

/// A tensor described by the pickle.
#[derive(Debug, Clone)]
pub(super) struct TensorRef {
    pub storage: StorageRef,
    pub dtype: ScalarType,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// What the arena holds.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// UTF-8 text, in the pickle itself.
    Str(Range<usize>),
    Bytes,
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(StorageRef),
    Tensor(Box<TensorRef>),
    /// Something allowed that a state dict's reader has no use for.
    Opaque,
}

/// The result of one pickle: its values, and where it ended.
#[derive(Debug)]
pub(super) struct Unpickled {
    data: Bytes,
    nodes: Vec<Node>,
    /// The pickled object.
    pub root: Value,
    /// The offset after the pickle's last byte.
    pub end: usize,
}

impl Unpickled {
    /// The node of a value that has one.
    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(id) => self.nodes.get(id),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn text(&self, value: Value) -> Option<&str> {
        match self.node(value)? {
            Node::Str(range) => std::str::from_utf8(self.data.get(range.clone())?).ok(),
            _ => None,
        }
    }

    /// The entries of a dict.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// Everything that the pickle made.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

/// Runs one pickle that begins at `start` of `data`. `file` and `base` (the offset of `data` in it, when that is known)
/// are for messages.
pub(super) fn unpickle(data: &Bytes, start: usize, file: &str, base: Option<u64>) -> Result<Unpickled> {
    let mut machine = Machine {
        data: data.clone(),
        pos: start,
        op_pos: start,
        file,
        base,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    loop {
        machine.op_pos = machine.pos;
        if machine.step()? {
            let root = machine.pop()?;
            return Ok(Unpickled { data: machine.data, nodes: machine.nodes, root, end: machine.pos });
        }
    }
}

/// A pickle being run.
pub(super) struct Machine<'a> {
    pub(super) data: Bytes,
    pos: usize,
    op_pos: usize,
    file: &'a str,
    base: Option<u64>,
    pub(super) nodes: Vec<Node>,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    /// Entries copied from lists into dicts: a short pickle must not copy a long list again and again.
    pub(super) copied: usize,
}

impl Machine<'_> {
    pub(super) fn place(&self) -> SourcePlace {
        let offset = self.base.map(|base| base.saturating_add(self.op_pos as u64));
        SourcePlace { file: self.file.to_owned(), line: None, offset }
    }

    pub(super) fn damaged(&self, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Model, "TB0362", message).at_place(self.place())
    }

    fn take(&mut self, n: u64) -> Result<Range<usize>> {
        let left = self.data.len() - self.pos;
        match usize::try_from(n) {
            Ok(n) if n <= left => {
                let range = self.pos..self.pos + n;
                self.pos += n;
                Ok(range)
            }
            _ => Err(self.damaged(format!("the pickle is cut off: {n} bytes wanted, {left} are left"))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let range = self.take(N as u64)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.data[range]);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u64> {
        self.array().map(|bytes| u64::from(u32::from_le_bytes(bytes)))
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.data[self.pos..];
        // No module or name is longer; a missing line end must not scan the whole file each time.
        let Some(n) = rest.iter().take(1024).position(|byte| *byte == b'\n') else {
            return Err(self.damaged("the pickle names a global without an end"));
        };
        let line = String::from_utf8_lossy(&rest[..n]).into_owned();
        self.pos += n + 1;
        Ok(line)
    }

    fn make(&mut self, node: Node) -> Result<Value> {
        if self.nodes.len() >= MAX_NODES {
            return Err(self.damaged(format!("the pickle makes more than {MAX_NODES} values")));
        }
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
    }

    pub(super) fn push_new(&mut self, node: Node) -> Result<()> {
        let value = self.make(node)?;
        self.push(value)
    }

    pub(super) fn push(&mut self, value: Value) -> Result<()> {
        if self.stack.len() >= MAX_NODES {
            return Err(self.damaged(format!("the pickle stacks more than {MAX_NODES} values")));
        }
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.damaged("the pickle takes a value where there is none"));
        }
        self.stack.pop().ok_or_else(|| self.damaged("the pickle takes a value where there is none"))
    }

    fn top(&self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(value) if self.stack.len() > floor => Ok(*value),
            _ => Err(self.damaged("the pickle takes a value where there is none")),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        match self.marks.pop() {
            // Not `split_off`, which may hand over the whole stack's capacity with a few values.
            Some(at) => Ok(self.stack.drain(at..).collect()),
            None => Err(self.damaged("the pickle takes a mark where there is none")),
        }
    }

    fn push_text(&mut self, n: u64) -> Result<()> {
        let range = self.take(n)?;
        if std::str::from_utf8(&self.data[range.clone()]).is_err() {
            return Err(self.damaged("a text in the pickle is not UTF-8"));
        }
        self.push_new(Node::Str(range))
    }

    fn push_bytes(&mut self, n: u64) -> Result<()> {
        self.take(n)?;
        self.push_new(Node::Bytes)
    }

    fn push_long(&mut self, n: u64) -> Result<()> {
        let range = self.take(n)?;
        let bytes = &self.data[range.clone()];
        if bytes.len() > 8 {
            // No number of a state dict is that long.
            return self.push_new(Node::Opaque);
        }
        let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn memoize(&mut self, index: u64) -> Result<()> {
        let value = self.top()?;
        if self.memo.len() >= MAX_NODES {
            return Err(self.damaged(format!("the pickle keeps more than {MAX_NODES} values")));
        }
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<()> {
        match self.memo.get(&index).copied() {
            Some(value) => self.push(value),
            None => Err(self.damaged(format!("the pickle recalls value {index}, which it never kept"))),
        }
    }

    fn push_tuple(&mut self, n: usize) -> Result<()> {
        let mut values = Vec::with_capacity(n);
        for _ in 0..n {
            values.push(self.pop()?);
        }
        values.reverse();
        self.push_new(Node::Tuple(values))
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = globals::lookup(module, name).map_err(|error| error.at_place(self.place()))?;
        self.push(Value::Global(global))
    }

    fn append(&mut self, values: Vec<Value>) -> Result<()> {
        let target = self.top()?;
        match target {
            Value::Node(id) => match self.nodes.get_mut(id) {
                Some(Node::List(list)) => {
                    list.extend(values);
                    Ok(())
                }
                Some(Node::Opaque) => Ok(()),
                _ => Err(self.damaged("the pickle appends to what is not a list")),
            },
            _ => Err(self.damaged("the pickle appends to what is not a list")),
        }
    }

    fn set_items(&mut self, values: &[Value]) -> Result<()> {
        if !values.len().is_multiple_of(2) {
            return Err(self.damaged("the pickle sets a key without a value"));
        }
        let pairs = values.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match self.top()? {
            Value::Node(id) => match self.nodes.get_mut(id) {
                Some(Node::Dict(dict)) => {
                    dict.extend(pairs);
                    Ok(())
                }
                Some(Node::Opaque) => Ok(()),
                _ => Err(self.damaged("the pickle sets items of what is not a dict")),
            },
            _ => Err(self.damaged("the pickle sets items of what is not a dict")),
        }
    }

    /// One opcode; true at the pickle's end.
    fn step(&mut self) -> Result<bool> {
        let op = self.u8()?;
        match op {
            b'.' => return Ok(true),
            0x80 => {
                let protocol = self.u8()?;
                if !(2..=5).contains(&protocol) {
                    return Err(
                        self.damaged(format!("pickle protocol {protocol} is not supported, 2 to 5 are"))
                    );
                }
            }
            0x95 => {
                // A frame only groups what follows; its length is checked and its content read as it comes.
                let n = self.u64()?;
                if n > (self.data.len() - self.pos) as u64 {
                    return Err(
                        self.damaged(format!("the pickle is cut off: a frame of {n} bytes is not there"))
                    );
                }
            }
            b'(' => {
                if self.marks.len() >= MAX_NODES {
                    return Err(self.damaged("the pickle sets too many marks"));
                }
                self.marks.push(self.stack.len());
            }
            b'0' => {
                if self.stack.len() == self.marks.last().copied().unwrap_or(0) && !self.marks.is_empty() {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let value = self.top()?;
                self.push(value)?;
            }
            b'q' => {
                let index = u64::from(self.u8()?);
                self.memoize(index)?;
            }
            b'r' => {
                let index = self.u32()?;
                self.memoize(index)?;
            }
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'h' => {
                let index = u64::from(self.u8()?);
                self.recall(index)?;
            }
            b'j' => {
                let index = self.u32()?;
                self.recall(index)?;
            }
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | b'G' | 0x8a | 0x8b => self.number(op)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e | 0x96 => self.string(op)?,
            _ => self.structure(op)?,
        }
        Ok(false)
    }

    fn number(&mut self, op: u8) -> Result<()> {
        let value = match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.u8()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            0x8a => {
                let n = u64::from(self.u8()?);
                return self.push_long(n);
            }
            _ => {
                let n = self.u32()?;
                return self.push_long(n);
            }
        };
        self.push(value)
    }

    fn string(&mut self, op: u8) -> Result<()> {
        let n = match op {
            b'X' | b'T' | b'B' => self.u32()?,
            0x8c | b'U' | b'C' => u64::from(self.u8()?),
            _ => self.u64()?,
        };
        match op {
            b'X' | 0x8c | 0x8d => self.push_text(n),
            // Python 2's strings: text where it is UTF-8, bytes otherwise.
            b'U' | b'T' => {
                let range = self.take(n)?;
                let is_text = std::str::from_utf8(&self.data[range.clone()]).is_ok();
                self.push_new(if is_text { Node::Str(range) } else { Node::Bytes })
            }
            _ => self.push_bytes(n),
        }
    }

    fn structure(&mut self, op: u8) -> Result<()> {
        match op {
            b')' => self.push_new(Node::Tuple(Vec::new())),
            b']' => self.push_new(Node::List(Vec::new())),
            b'}' => self.push_new(Node::Dict(Vec::new())),
            0x8f => self.push_new(Node::Opaque),
            0x85 => self.push_tuple(1),
            0x86 => self.push_tuple(2),
            0x87 => self.push_tuple(3),
            b't' => {
                let values = self.pop_mark()?;
                self.push_new(Node::Tuple(values))
            }
            b'l' => {
                let values = self.pop_mark()?;
                self.push_new(Node::List(values))
            }
            b'd' => {
                let values = self.pop_mark()?;
                self.push_new(Node::Dict(Vec::new()))?;
                self.set_items(&values)
            }
            0x91 => {
                self.pop_mark()?;
                self.push_new(Node::Opaque)
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])
            }
            b'e' | 0x90 => {
                let values = self.pop_mark()?;
                self.append(values)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])
            }
            b'u' => {
                let values = self.pop_mark()?;
                self.set_items(&values)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_global(&module, &name)
            }
            0x93 => self.stack_global(),
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)
            }
            b'b' => self.build(),
            b'Q' => self.persistent(),
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Err(globals::refused(&module, &name).at_place(self.place()))
            }
            other => Err(self.damaged(match opcode_name(other) {
                Some(name) => format!("refused: the pickle uses {name}, which no state dict needs"),
                None => format!("0x{other:02x} is no opcode of pickles"),
            })),
        }
    }

    fn stack_global(&mut self) -> Result<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.text(module), self.text(name)) {
            (Some(module), Some(name)) => self.push_global(&module, &name),
            _ => Err(self.damaged("the pickle names a global by what is not text")),
        }
    }

    pub(super) fn text(&self, value: Value) -> Option<String> {
        let Value::Node(id) = value else { return None };
        match self.nodes.get(id)? {
            Node::Str(range) if range.len() <= 1024 => {
                std::str::from_utf8(&self.data[range.clone()]).ok().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// The state of an object: kept by none of the values that are allowed here (an OrderedDict's is `_metadata`).
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        let allowed = match self.top()? {
            Value::Node(id) => {
                matches!(self.nodes.get(id), Some(Node::Dict(_) | Node::Tensor(_) | Node::Opaque))
            }
            _ => false,
        };
        if allowed { Ok(()) } else { Err(self.damaged("the pickle sets the state of what has none")) }
    }
}

/// The names of pickle's other opcodes, as pickletools has them: what text pickles write, and what calls or reaches outside.
fn opcode_name(op: u8) -> Option<&'static str> {
    Some(match op {
        b'o' => "OBJ (it calls a class)",
        0x92 => "NEWOBJ_EX (it calls a class)",
        0x82 => "EXT1 (a registered extension)",
        0x83 => "EXT2 (a registered extension)",
        0x84 => "EXT4 (a registered extension)",
        b'P' => "PERSID (a persistent id as text)",
        0x97 => "NEXT_BUFFER (data outside of the pickle)",
        0x98 => "READONLY_BUFFER (data outside of the pickle)",
        b'I' => "INT (protocol 0)",
        b'L' => "LONG (protocol 0)",
        b'F' => "FLOAT (protocol 0)",
        b'S' => "STRING (protocol 0)",
        b'V' => "UNICODE (protocol 0)",
        b'p' => "PUT (protocol 0)",
        b'g' => "GET (protocol 0)",
        _ => return None,
    })
}
