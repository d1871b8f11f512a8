//! JavaScript functions of pipeline files, run by QuickJS within the process: they see neither files nor network.
//!
//! A program is read once for each thread that runs it at once, and called for each row. It has a second for a row, and a
//! bounded heap and stack. What it keeps in variables of its own it keeps from row to row, in no certain order.

mod values;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rquickjs::context::EvalOptions;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Function, Runtime, Value as Js};
use tiebeam_core::row::{Row, Schema, Value};

/// How long a program may take for one row.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest text, in bytes.
const LONGEST: usize = 64 << 10;

/// The largest heap of a program, in bytes.
const HEAP: usize = 128 << 20;

/// The largest stack of a program, in bytes: a part of what threads have.
const STACK: usize = 256 << 10;

/// The name of the text in traces.
const FILE: &str = "callable";

/// Where a context keeps the function.
const CALLABLE: &str = "__callable__";

/// An exception that a program raised, or that it is no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Its name, such as `TypeError`.
    pub kind: String,
    /// Its message.
    pub message: String,
    /// The line of the text, from 1, where it is known.
    pub line: Option<u32>,
}

impl Exception {
    fn new(kind: &str, message: impl Into<String>) -> Self {
        Exception { kind: kind.to_owned(), message: message.into(), line: None }
    }
}

/// A program that gives a value for a row.
#[derive(Debug, Clone)]
pub struct Program {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    text: Text,
    /// Contexts that nobody uses now.
    idle: Mutex<Vec<Instance>>,
}

#[derive(Debug)]
enum Text {
    /// Gives the function; lines in front of the user's own are counted.
    Expression(String, u32),
    /// Scripts that define functions.
    Script(String),
}

impl Program {
    /// An expression over the columns of a schema.
    ///
    /// # Errors
    /// When it is no expression of JavaScript.
    pub fn expression(text: &str, schema: &Schema) -> Result<Self, Exception> {
        let names = schema.fields.iter().map(|field| &*field.name);
        let used: Vec<&str> = names.filter(|name| is_name(name) && text.contains(*name)).collect();
        let code = format!(
            "(function (__row__) {{ const {{{}}} = __row__; return (\n{text}\n); }})",
            used.join(", ")
        );
        Program::of(Text::Expression(code, 1), text)
    }

    /// A function of the row: `row => …`, `function (row) { … }`, or a text that defines functions, of which the last one is
    /// called, or what it ends with.
    ///
    /// # Errors
    /// When it is no JavaScript, or gives no function.
    pub fn function(text: &str) -> Result<Self, Exception> {
        let alone = Program::of(Text::Expression(format!("(\n{text}\n)"), 1), text);
        match alone {
            Err(exception) if exception.kind == "SyntaxError" => {
                // What is wrong with a single function is told as such.
                Program::of(Text::Script(text.to_owned()), text).map_err(|other| match other.kind.as_str() {
                    "SyntaxError" => exception,
                    _ => other,
                })
            }
            made => made,
        }
    }

    fn of(code: Text, text: &str) -> Result<Self, Exception> {
        if text.len() > LONGEST {
            let message = format!("a text of {} bytes, more than {LONGEST}", text.len());
            return Err(Exception::new("SyntaxError", message));
        }
        let first = Instance::new(&code)?;
        Ok(Program { shared: Arc::new(Shared { text: code, idle: Mutex::new(vec![first]) }) })
    }

    /// The value for a row.
    ///
    /// # Errors
    /// The exception that the program raised.
    pub fn call(&self, row: &Row) -> Result<Value, Exception> {
        let idle = || self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let instance = match taken {
            Some(instance) => instance,
            None => Instance::new(&self.shared.text)?,
        };
        let given = instance.call(row);
        // One that ran out of time or memory may be in any state.
        if !instance.limits.is_exceeded() {
            idle().push(instance);
        }
        given
    }
}

/// A context with the function in it.
struct Instance {
    context: Context,
    limits: Arc<Limits>,
    /// The lines in front of the user's own.
    skipped: u32,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

/// When a program must be done.
#[derive(Debug)]
struct Limits {
    begun: Instant,
    /// In microseconds after the beginning.
    until: AtomicU64,
    exceeded: AtomicBool,
}

impl Limits {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn start(&self) {
        self.until.store(self.now() + PATIENCE.as_micros() as u64, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let over = self.now() > self.until.load(Ordering::Relaxed);
        if over {
            self.exceeded.store(true, Ordering::Relaxed);
        }
        over
    }

    fn is_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }
}

impl Instance {
    fn new(text: &Text) -> Result<Self, Exception> {
        let failed = |error: rquickjs::Error| Exception::new("InternalError", error.to_string());
        let limits = Arc::new(Limits {
            begun: Instant::now(),
            until: AtomicU64::new(0),
            exceeded: AtomicBool::new(false),
        });
        let runtime = Runtime::new().map_err(failed)?;
        runtime.set_memory_limit(HEAP);
        runtime.set_max_stack_size(STACK);
        let watch = limits.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || watch.is_over())));
        let context = Context::full(&runtime).map_err(failed)?;
        let skipped = match text {
            Text::Expression(_, skipped) => *skipped,
            Text::Script(_) => 0,
        };
        let instance = Instance { context, limits, skipped };
        instance.limits.start();
        instance.context.with(|cx| instance.define(&cx, text))?;
        Ok(instance)
    }

    /// Reads the text and keeps its function.
    fn define(&self, cx: &Ctx<'_>, text: &Text) -> Result<(), Exception> {
        let code = match text {
            Text::Expression(code, _) | Text::Script(code) => code,
        };
        let mut given = self.read(cx, code)?;
        if let Text::Script(code) = text
            && !given.is_function()
            && let Some(name) = last_function(code)
        {
            given = self.read(cx, name)?;
        }
        if !given.is_function() {
            let message = "no function is given: write `row => …` or `function (row) { … }`";
            return Err(Exception::new("TypeError", message));
        }
        cx.globals().set(CALLABLE, given).catch(cx).map_err(|caught| self.exception(caught))
    }

    fn read<'js>(&self, cx: &Ctx<'js>, code: &str) -> Result<Js<'js>, Exception> {
        let mut options = EvalOptions::default();
        options.strict = false;
        options.filename = Some(FILE.to_owned());
        cx.eval_with_options(code, options).catch(cx).map_err(|caught| self.exception(caught))
    }

    fn call(&self, row: &Row) -> Result<Value, Exception> {
        self.limits.start();
        self.context.with(|cx| {
            let call = || -> rquickjs::Result<Js<'_>> {
                let function: Function<'_> = cx.globals().get(CALLABLE)?;
                function.call((values::row_to_js(&cx, row)?,))
            };
            let given = call().catch(&cx).map_err(|caught| self.exception(caught))?;
            match values::from_js(&cx, given) {
                Ok(value) => Ok(value),
                Err(values::Unheld::Exception(exception)) => Err(exception),
                Err(values::Unheld::Raised(error)) => {
                    let caught = Err::<(), _>(error).catch(&cx).err();
                    Err(caught
                        .map_or_else(|| Exception::new("InternalError", ""), |caught| self.exception(caught)))
                }
            }
        })
    }

    fn exception(&self, caught: CaughtError<'_>) -> Exception {
        if self.limits.is_exceeded() {
            let message = format!("it took more than {} s for one row", PATIENCE.as_secs());
            return Exception::new("TimeoutError", message);
        }
        match caught {
            CaughtError::Exception(raised) => {
                let name: Option<String> = raised.as_object().get("name").ok();
                let message = raised.message().unwrap_or_default();
                let line = raised.stack().as_deref().and_then(line_of);
                // Nothing is certain behind that.
                if message == "out of memory" {
                    self.limits.exceeded.store(true, Ordering::Relaxed);
                }
                Exception {
                    kind: name.unwrap_or_else(|| "Error".to_owned()),
                    message,
                    line: line.map(|line| line.saturating_sub(self.skipped).max(1)),
                }
            }
            CaughtError::Value(value) => {
                let shown = value.as_string().and_then(|text| text.to_string().ok());
                self.limits.exceeded.store(shown.is_none(), Ordering::Relaxed);
                Exception::new("Error", shown.unwrap_or_else(|| format!("{value:?}")))
            }
            CaughtError::Error(error) => Exception::new("InternalError", error.to_string()),
        }
    }
}

/// The line of the text in the first frame of a trace that is in it.
fn line_of(stack: &str) -> Option<u32> {
    let rest = stack.split_once(&format!("{FILE}:"))?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether a column can be a variable.
fn is_name(name: &str) -> bool {
    const WORDS: [&str; 46] = [
        "arguments",
        "await",
        "break",
        "case",
        "catch",
        "class",
        "const",
        "continue",
        "debugger",
        "default",
        "delete",
        "do",
        "else",
        "enum",
        "eval",
        "export",
        "extends",
        "false",
        "finally",
        "for",
        "function",
        "if",
        "implements",
        "import",
        "in",
        "instanceof",
        "interface",
        "let",
        "new",
        "null",
        "package",
        "private",
        "protected",
        "public",
        "return",
        "static",
        "super",
        "switch",
        "this",
        "throw",
        "true",
        "try",
        "typeof",
        "var",
        "void",
        "while",
    ];
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
        && !WORDS.contains(&name)
        && !matches!(name, "with" | "yield" | "__row__")
}

/// The name of the last function that a script declares at the beginning of a line.
fn last_function(text: &str) -> Option<&str> {
    let name = |line: &'_ str| -> Option<(usize, usize)> {
        let rest = line.strip_prefix("function")?;
        let name = rest.trim_start();
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')?;
        let start = line.len() - name.len();
        (end > 0 && start > "function".len()).then_some((start, start + end))
    };
    text.lines().filter_map(|line| name(line).map(|(start, end)| &line[start..end])).next_back()
}

#[cfg(test)]
mod tests;
