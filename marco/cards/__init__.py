"""What is told of students and datasets to others: their cards, and the hub."""
