//! Dead letters: kept, sorted and tried again. [`dead_letters`] folds the stream `DLQ` into entries, [`archive`] reads
//! them and writes to it, [`edit`] puts new data into a failed event, [`http`] is the API and the page. `main.rs` wires them.

pub mod archive;
pub mod dead_letters;
pub mod edit;
pub mod http;
