//! Looking into a store without changing it.
pub struct Report;
pub struct ExportItem;
