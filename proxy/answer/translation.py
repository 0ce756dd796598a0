"""Problems in the language that a client prefers."""

from starlette.requests import Request

from proxy.answer.language import DEFAULT, Language, preferred
from proxy.answer.words import words
from proxy.problems import Problem


def translated(problem: Problem, request: Request) -> Problem:
    """The same problem, with its code, status and headers, in the request's language.

    English ones say what exactly was found; others say what the code means. The older routes
    speak English to everybody, as they always did.
    """
    if not request.url.path.startswith("/v1/"):
        return problem
    return in_language(problem, preferred(request.headers.get("accept-language", "")))


def in_language(problem: Problem, language: Language) -> Problem:
    """The same problem, with its code, status and headers, in a language."""
    if language == DEFAULT:
        return problem
    told = words(language)
    headers = {**problem.headers, "Content-Language": language, "Vary": "Accept-Language"}
    return Problem(
        problem.code, told.problems[problem.code], headers, title=told.titles[problem.status]
    )
