"""The viewer's side: fetches, plays, holds, and uploads under the cap."""
