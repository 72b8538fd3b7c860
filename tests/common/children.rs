//! Real children of this process.

use std::process::{Child, Command, Stdio};

/// Real children, killed and waited for at the end.
#[derive(Default)]
pub struct Children(pub Vec<Child>);

impl Children {
    pub fn sleepers(count: usize) -> Children {
        let mut children = Children::default();
        children.spawn(count);
        children
    }

    pub fn spawn(&mut self, count: usize) {
        for _ in 0..count {
            self.0.push(sleeper());
        }
    }

    pub fn end(&mut self, count: usize) {
        for mut child in self.0.drain(..count) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.end(self.0.len());
    }
}

pub fn sleeper() -> Child {
    Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()
}

/// Memory that is resident, and of this process alone.
pub fn touched(bytes: usize) -> Vec<u8> {
    std::hint::black_box(vec![1; bytes])
}
