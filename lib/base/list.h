/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Intrusive doubly linked list
 *
 * A List is the head and, embedded in a structure, the link of an element. An unlinked element
 * points to itself, so list_is_linked() and a second list_unlink() are always allowed. No memory
 * is owned. Not locked: one list belongs to one thread.
 */

#include "lib/base/macro.h"

#include <stdbool.h>

typedef struct List {
        struct List *next, *prev;
} List;

#define LIST_INIT(_list)                           \
        (List)                                     \
        {                                          \
                .next = &(_list), .prev = &(_list) \
        }

static inline void list_init(List *list)
{
        list->next = list->prev = list;
}

static inline bool list_is_empty(const List *list)
{
        return list->next == list;
}

static inline bool list_is_linked(const List *link)
{
        return link->next != link;
}

static inline void list_link_before(List *where, List *link)
{
        dd_assert(!list_is_linked(link));
        link->prev = where->prev;
        link->next = where;
        where->prev->next = link;
        where->prev = link;
}

static inline void list_append(List *list, List *link)
{
        list_link_before(list, link);
}

static inline void list_prepend(List *list, List *link)
{
        list_link_before(list->next, link);
}

static inline void list_unlink(List *link)
{
        link->prev->next = link->next;
        link->next->prev = link->prev;
        list_init(link);
}

/* The first element's link, or NULL. */
static inline List *list_first(const List *list)
{
        return list_is_empty(list) ? NULL : list->next;
}

static inline List *list_last(const List *list)
{
        return list_is_empty(list) ? NULL : list->prev;
}

/* Unlinks and returns the first element's link, or NULL. */
static inline List *list_pop(List *list)
{
        List *link = list_first(list);

        if (link)
                list_unlink(link);
        return link;
}

#define list_entry(_link, _type, _member) CONTAINER_OF(_link, _type, _member)

#define list_for_each(_iter, _list) \
        for (List *_iter = (_list)->next; _iter != (_list); _iter = _iter->next)

/* The current element may be unlinked or freed in the body. */
#define list_for_each_safe(_iter, _list)                                                 \
        for (List *_iter = (_list)->next, *_iter##_next = _iter->next; _iter != (_list); \
                _iter = _iter##_next, _iter##_next = _iter->next)
