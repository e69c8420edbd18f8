"""People as teachers: what they are asked, the page that asks, their answers, and how well they agree."""
