"""What people read: the tables of the terminal and the page that holds a whole verification."""
